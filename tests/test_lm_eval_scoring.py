"""Log-likelihoods on kept neurons, against hooks that zero the dropped ones; tests_runtimes/ has the harness itself."""

from typing import Any

import pytest
import torch
from conftest import demo_texts
from slow_truths import logits, naive

from coreinfer import Engine
from coreinfer.lm_eval.scoring import Scorer
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_CLUSTERS


@pytest.fixture(scope="module")
def demo() -> Engine:
    return Engine.load(DEMO_CLUSTERS, dtype="float32")


def split(engine: Engine, text: str, prompt: int) -> tuple[list[int], list[int]]:
    ids = engine.tokenizer(text)["input_ids"]
    return ids[:prompt], ids[prompt:]


def cost(rows: torch.Tensor, context: list[int], continuation: list[int]) -> float:
    """Of the continuation, by the logits (1, T, V) of all of it."""
    rises = rows[0, len(context) - 1 : -1].float().log_softmax(-1)
    return float(rises.gather(1, torch.tensor(continuation)[:, None]).double().sum())


@pytest.mark.parametrize("policy", ["similarity", "stability", "hybrid"])
def test_continuations_run_on_the_kept_neurons(policy: str, demo: Engine) -> None:
    scorer, downs = Scorer(demo, policy, 0.1), [mlp.down for mlp in find_mlps(demo.model)]  # type: ignore[arg-type]
    for text in demo_texts(3, 240):
        context, continuation = split(demo, text, 24)
        found, _ = scorer.score(context, continuation)
        ids = torch.tensor([context + continuation])
        kept = demo.predict(demo.tokenizer.decode(context, skip_special_tokens=True), policy, 0.1).neurons
        assert isinstance(kept, NeuronSet)
        assert scorer.neurons() == kept
        sparse = cost(naive(demo.model, downs, kept, ids, len(context)), context, continuation)
        dense = cost(logits(demo.model, ids), context, continuation)
        assert found == pytest.approx(sparse, abs=1e-2)
        assert abs(found - dense) > 0.1  # had it run dense, this fails


def test_all_neurons_are_the_dense_model(demo: Engine) -> None:
    context, continuation = split(demo, demo_texts(1, 240)[0], 24)
    ids = torch.tensor([context + continuation])
    wanted = cost(logits(demo.model, ids), context, continuation)
    for scorer in (Scorer(demo, "auto", 1.0), Scorer(demo, "dense")):
        assert scorer.score(context, continuation)[0] == pytest.approx(wanted, abs=1e-3)


def test_choices_share_their_contexts_set(demo: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, calls, planned = Scorer(demo, "stability", 0.2), list[str](), demo.planned

    def counted(text: str, *rest: Any) -> Any:
        calls.append(text)
        made: Any = planned(text, *rest)
        return made

    monkeypatch.setattr(demo, "planned", counted)
    context, continuation = split(demo, demo_texts(1, 200)[0], 20)
    first = scorer.score(context, continuation)
    assert scorer.score(context, continuation[:5])[0] > first[0]
    assert scorer.score(context, continuation) == pytest.approx(first, abs=1e-4)
    assert len(calls) == 1
    scorer.score(context[:-1], continuation)
    assert len(calls) == 2


def test_greedy_and_too_long(demo: Engine) -> None:
    scorer = Scorer(demo, "similarity", 0.4)
    context = split(demo, demo_texts(1, 200)[0], 20)[0]
    text = demo.tokenizer.decode(context, skip_special_tokens=True)
    made = demo.generate(text, "similarity", 0.4, 8, runtime="transformers", eos_token_id=None)
    ids: list[int] = demo.tokenizer(text + made.text)["input_ids"][len(context) :]
    assert scorer.score(context, ids)[1]
    assert not scorer.score(context, [*ids[:-1], ids[-1] + 1])[1]
    long = context * 40  # 800 tokens of 512
    assert scorer.score(long, ids)[0] == pytest.approx(scorer.score(long[-(513 - len(ids)) :], ids)[0], abs=1e-4)
