"""Choosing again while a text grows: the schedule, the engine against parts made by hand, evaluation against it."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import demo_texts
from hypothesis import given
from hypothesis import strategies as st

from coreinfer import CoreInferError, Engine, slim
from coreinfer.evaluate.plan import Plan, name_texts
from coreinfer.evaluate.policies import Rungs
from coreinfer.evaluate.scoring import measure
from coreinfer.refresh import LEAST, blocks, check_with_refresh, parse_refresh

PROMPT = "User: Hi, I would like to book a table for two at an Italian restaurant in San Jose. Assistant:"


class Tokens:
    """A streamer that remembers."""

    def __init__(self) -> None:
        self.tokens = list[int]()

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        """Nothing is left to do."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(dtype="float32")


@given(st.one_of(st.none(), st.just("auto"), st.integers(2, 70)), st.integers(1, 300), st.integers(1, 300))
def test_blocks_cover_the_continuation(refresh: Any, prompt: int, continuation: int) -> None:
    found = blocks(refresh, prompt, continuation)
    assert found[0][0] == prompt
    assert all(known + served == after for (known, served), (after, _) in pairwise(found))
    assert sum(served for _, served in found) == continuation
    whole = found[:-1]
    if refresh is None:
        assert not whole
    elif refresh == "auto":  # fewer dense tokens than twice the text's, but for the first steps of a short prompt
        assert all(served == max(LEAST, known) for known, served in whole)
        assert sum(known for known, _ in found[1:]) < 2 * (prompt + continuation) + LEAST
    else:
        assert all(served == refresh for _, served in whole)


def test_what_a_user_may_write() -> None:
    assert (parse_refresh(None), parse_refresh("auto"), parse_refresh("32")) == (None, "auto", 32)
    for wrong in ("1", "0", "-3", "often", "2.5"):
        with pytest.raises(CoreInferError, match=f"refresh is '{wrong}': give auto, or a number"):
            parse_refresh(wrong)
    with pytest.raises(CoreInferError, match="stop_strings looks at a generation as a whole"):
        check_with_refresh({"stop_strings": ["."], "do_sample": True})


@pytest.mark.parametrize("policy", ["similarity", "hybrid", "stability"])
def test_a_refreshed_generation_is_its_parts(engine: Engine, policy: str) -> None:
    ids, sets = engine.encode(PROMPT), []
    for length in (12, 12, 6):
        text = engine.tokenizer.decode(ids[0], skip_special_tokens=True)
        assert torch.equal(engine.encode(text), ids), "choose a prompt whose tokens survive being read again"
        neurons = engine.predict(text, policy, 0.3).neurons
        assert neurons is not None
        sets.append(neurons)
        with slim(engine.model, neurons):
            ids = engine.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False
            )
    made = engine.generate(PROMPT, policy, 0.3, max_new_tokens=30, refresh=12)
    assert made.text == engine.tokenizer.decode(ids[0, made.prompt_tokens :], skip_special_tokens=True)
    assert (made.new_tokens, made.refreshes, made.stopped) == (30, 2, "length")
    assert made.prediction.neurons == sets[0] != sets[1]


def test_a_stream_is_the_text_and_goes_on_over_refreshes(engine: Engine) -> None:
    *pieces, made = engine.stream(PROMPT, keep=0.4, max_new_tokens=40, refresh="auto")
    assert "".join(pieces) == made.text
    assert made.refreshes == 1
    assert made.tokens_per_second > 0


def test_an_end_token_ends_it_also_where_a_refresh_is_due(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = engine.generate(PROMPT, keep=0.4, max_new_tokens=4, refresh=4)
    last = int(engine.tokenizer(whole.text)["input_ids"][-1])
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", last)
    made = engine.generate(PROMPT, keep=0.4, max_new_tokens=20, refresh=4)
    assert (made.text, made.refreshes, made.stopped) == (whole.text, 0, "eos")


@pytest.mark.parametrize("runtime", ["coreinfer", "transformers"])
@pytest.mark.parametrize("refresh", [None, 4])
def test_a_caller_says_what_ends_it(
    engine: Engine, runtime: Any, refresh: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its first such token, wherever in a block, whatever the model's own end is; None ends it nowhere."""
    seen = Tokens()
    common: dict[str, Any] = {"keep": 0.4, "max_new_tokens": 9, "refresh": refresh, "runtime": runtime}
    whole = engine.generate(PROMPT, streamer=seen, **common)
    tokens = seen.tokens[whole.prompt_tokens :]
    for last in (tokens[1], tokens[3], torch.tensor([tokens[5], 8191])):
        made = engine.generate(PROMPT, eos_token_id=last, pad_token_id=0, **common)
        ends = torch.as_tensor(last).flatten().tolist()
        assert made.new_tokens == next(i for i, token in enumerate(tokens, 1) if token in ends)
        assert (made.stopped, whole.text.startswith(made.text), made.runtime) == ("eos", True, runtime)
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", tokens[3])
    assert engine.generate(PROMPT, **common).new_tokens < 9
    for other in (None, 8191):
        assert engine.generate(PROMPT, eos_token_id=other, **common).text == whole.text


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"eos_token_id": "."}, r"eos_token_id is '\.': give a token's id"), ({"eos_token_id": [2, -1]}, r"\[2, -1\]"),
        ({"eos_token_id": 2.5}, "eos_token_id is 2.5"), ({"pad_token_id": [1, 2]}, r"pad_token_id is \[1, 2\]: give"),
        ({"pad_token_id": "x"}, "pad_token_id is 'x'"),
    ],
)  # fmt: skip
def test_ends_that_are_no_tokens(engine: Engine, option: dict[str, Any], said: str) -> None:
    with pytest.raises(CoreInferError, match=said):
        engine.generate(PROMPT, max_new_tokens=2, **option)


def test_evaluation_gives_each_block_all_before_it_for_a_prompt(engine: Engine) -> None:
    texts = [text for text in demo_texts(9, 2000) if len(engine.tokenizer(text)["input_ids"]) >= 56][:2]
    policies = ("stability", "similarity", "hybrid", "auto")
    plan = Plan((0.3,), (16,), 40, policies, refresh=24)
    found = measure(engine, name_texts(engine.tokenizer, texts, plan), plan, Rungs(engine, policies, refresh=True))
    for policy in policies:
        mine = found.numbers[0, found.rungs.index((0.3, f"{policy}+refresh"))]
        parts = []
        for known, length in ((16, 24), (40, 16)):
            part = Plan((0.3,), (known,), length, (policy,))
            named = name_texts(engine.tokenizer, texts, part)
            parts.append((length, measure(engine, named, part, Rungs(engine, (policy,))).numbers[0, 0]))
        assert mine == pytest.approx(sum(length * numbers for length, numbers in parts) / 40, abs=1e-5)
