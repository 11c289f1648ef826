"""Prompts decoded together: who meets whom, and that each text is what it would be alone on the same neurons."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import fine
from conftest import run_cli
from families import BOS, build, down_modules, tokens
from families import one_thread as one_thread
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from slow_truths import generated, greedy, some

from coreinfer import batches
from coreinfer.clock import Clock
from coreinfer.decode.continuing import Begun, Continuing, Noise, Sampling, continuing
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.together import Text, decode
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.grouping import CAP, DENSE, groups, joined
from coreinfer.neurons import NeuronSet, every, unpack
from coreinfer.settings import StatisticSettings

RIVER = [
    "The river that runs through the old town", "A river, a bridge and a mill", "She cut the onions and fried them",
    "Boil the rice, then add salt", "The team won the match in the last minute",
]  # fmt: skip


def sets_of(masks: Any) -> list[NeuronSet]:
    return [unpack([np.packbits(row, bitorder="little").tobytes() for row in mask], mask.shape[1]) for mask in masks]


@given(masks=arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 3), st.integers(1, 12))), most=st.integers(1, 5))
def test_groups_are_whole_small_and_alike(masks: Any, most: int) -> None:
    made = groups(sets_of(masks), most)
    assert sorted(index for group in made for index in group) == list(range(len(masks)))
    for group in made:
        assert 1 <= len(group) <= most
        if len(group) > 1:
            assert masks[group].any(0).sum() <= CAP * masks[group[0]].sum()


@given(masks=arrays(bool, st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 12))))
def test_a_union_holds_all_and_nothing_else(masks: Any) -> None:
    made, wanted = joined(sets_of(masks)).mask(), masks.any(0)
    assert np.array_equal(made, np.ones_like(wanted) if wanted.mean() >= DENSE else wanted)


def test_like_ones_meet() -> None:
    a, b = np.zeros((2, 2, 40), bool)
    a[:, :10], b[:, 30:] = True, True
    near_a = a.copy()
    near_a[:, 10] = True
    made = groups(sets_of(np.stack([a, b, near_a, b])), 8)
    assert made == [[0, 2], [1, 3]]
    assert groups(sets_of(np.stack([a, b, near_a, b])), 1) == [[0], [1], [2], [3]]


def made_of(name: str) -> tuple[Continuing, Decoder]:
    decoder = Decoder(build(name), 64)
    return continuing(decoder, StatisticSettings()), decoder


def text_of(own: Continuing, ids: torch.Tensor, neurons: NeuronSet, length: int, sampling: Sampling) -> Text:
    noise = Noise()
    noise._seed = 5 + ids.shape[1]  # another for each text
    return Text(own.prefill(ids, neurons, sampling, noise), length)


@pytest.mark.parametrize("name", ["OPT", "Llama", "Gemma3"])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_texts_of_unequal_lengths_equal_those_alone(name: str, temperature: float) -> None:
    (own, decoder), sampling, neurons = made_of(name), Sampling(temperature), some()
    prompts = [torch.tensor([[BOS, *tokens(1, 4 + 3 * n, n)[0].tolist()]]) for n in range(4)]
    lengths = [30, 1, 11, 24]

    def made(which: list[int], slots: int) -> list[list[int]]:
        decoder.make_room(64, slots)
        texts = [text_of(own, prompts[n], neurons, lengths[n], sampling) for n in which]
        decode(decoder, texts, neurons, lambda token: False, sampling)
        return [text.made for text in texts]

    together = made([0, 1, 2, 3], 4)
    assert [len(text) for text in together] == lengths
    assert [made([n], 1)[0] for n in range(4)] == together
    if not temperature:
        model = build(name)
        for ids, text in zip(prompts, together, strict=True):
            assert greedy(model, down_modules(model, name), neurons, ids, len(text))[ids.shape[1] :] == text


def test_a_text_ends_where_it_should() -> None:
    """And those beside it go on."""
    (own, decoder), all_of = made_of("Llama"), every(2, 48)
    prompts = [torch.tensor([[BOS, *tokens(1, 6, n)[0].tolist()]]) for n in range(3)]
    wanted = [generated(build("Llama"), ids, 20)[0][7:] for ids in prompts]
    stop = wanted[1][5]
    decoder.make_room(64, 3)
    texts = [text_of(own, ids, all_of, 20, Sampling()) for ids in prompts]
    decode(decoder, texts, all_of, lambda token: token == stop, Sampling())
    cut = [text[: text.index(stop) + 1] if stop in text else text for text in wanted]
    assert [text.made for text in texts] == cut
    assert [text.seconds > 0 for text in texts] == [len(text) > 1 for text in cut]


def test_a_text_of_one_token_needs_no_step() -> None:
    _, decoder = made_of("Llama")
    ids = torch.tensor([[BOS, 5, 6]])
    text = Text(Begun(ids, None, some(), 7), 1)
    decode(decoder, [text], some(), lambda token: False, Sampling())
    assert (text.made, text.seconds) == ([7], 0.0)


@pytest.mark.parametrize("policy", ["hybrid", "similarity", "dense"])
def test_the_engine_keeps_the_order_and_says_which_neurons(engine: Engine, policy: Any) -> None:
    made = list(engine.generate_many(RIVER, 3, policy=policy, max_new_tokens=10))
    for prompt, one in zip(RIVER, made, strict=True):
        own = engine.predict(prompt, policy).neurons
        used = one.prediction.neurons
        assert own is not None
        assert used is not None
        assert (used.mask() | own.mask() == used.mask()).all()
        alone = engine.runtimes.run(
            "coreinfer", engine.encode(prompt), used, 10, Clock(None), lambda token: False, {"do_sample": False}
        )
        ids = alone.ids[0, one.prompt_tokens :]
        assert engine.tokenizer.decode(ids, skip_special_tokens=True) == one.text
        assert (one.runtime, one.new_tokens, one.stopped) == ("coreinfer", 10, "length")
    assert len({id(one.prediction.neurons) for one in made}) < len(made)


def test_more_prompts_than_wait_for_each_other(engine: Engine) -> None:
    """Nine prompts in batches of two: the ninth is in the second wave; a seed decides what is drawn."""
    prompts = [f"{word} {n}" for n, word in enumerate(("river", "onions", "match") * 3)]

    def drawn_texts() -> list[str]:
        torch.manual_seed(3)
        options: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 1.0}
        return [one.text for one in engine.generate_many(prompts, 2, max_new_tokens=6, **options)]

    first = drawn_texts()
    assert len(first) == 9
    assert len(set(first)) > 1
    assert drawn_texts() == first


def test_equal_prompts_are_drawn_apart_and_come_as_they_are_done(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As generate would draw them one after another; the first text does not wait for the last group."""
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 1.0, "max_new_tokens": 8}
    torch.manual_seed(4)
    wanted = [engine.generate(RIVER[0], policy="dense", **options).text for _ in range(4)]
    assert len(set(wanted)) > 1
    seen = list[int]()

    def counted(decoder: Any, texts: Any, *rest: Any) -> None:
        seen.append(len(texts))
        decode(decoder, texts, *rest)

    monkeypatch.setattr(batches, "decode", counted)
    torch.manual_seed(4)
    made = engine.generate_many([RIVER[0]] * 4, 2, policy="dense", **options)
    assert next(made).text == wanted[0]
    assert seen == [2]
    assert [one.text for one in made] == wanted[1:]


def test_no_memory_for_caches(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one line, and the next text is made as ever."""

    def none(*_: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    before = engine.generate(RIVER[0], max_new_tokens=4).text
    with monkeypatch.context() as patch:
        patch.setattr("coreinfer.decode.decoder.State", none)
        with pytest.raises(CoreInferError, match=r"no memory for the caches of 31 texts of \d+ tokens"):
            list(engine.generate_many(RIVER[:1] * 31, 31, max_new_tokens=4))
    assert engine.generate(RIVER[0], max_new_tokens=4).text == before


def test_a_cache_that_grows_in_length_has_the_slots_asked_for() -> None:
    _, decoder = made_of("Llama")
    decoder.make_room(20, 8)
    assert (decoder.state.slots, decoder.context) == (8, 64)
    with pytest.raises(CoreInferError, match="prompt and continuation have 65 tokens, coreinfer's own steps hold 64"):
        decoder.make_room(65)
    small = Decoder(build("Llama"), 16)
    small.make_room(16, 8)
    small.make_room(40)
    assert (small.state.slots, small.context) == (1, 40)


def test_options_that_only_transformers_knows(engine: Engine) -> None:
    with pytest.raises(CoreInferError, match="a batch is decoded by coreinfer's own steps, which cannot serve"):
        list(engine.generate_many(RIVER, 2, num_beams=1, top_k=3, do_sample=True))
    with pytest.raises(CoreInferError, match=r"only Transformers' generate knows \(kep\)"):
        list(engine.generate_many(RIVER, 2, kep=3))
    with pytest.raises(CoreInferError, match=r"the prompts are one text, 'a river': give a list of them"):
        list(engine.generate_many("a river"))
    with pytest.raises(CoreInferError, match=r"prompt 2: "):
        list(engine.generate_many(["a river", ""]))
    with pytest.raises(CoreInferError, match="batch is 0: give at least 1"):
        engine.generate_many(RIVER, 0)


def test_the_command_line(artifact: Path) -> None:
    result = fine(run_cli("generate", "-a", artifact, *RIVER[:3], "--batch", 2, "-n", 6, "--json"))
    assert [row["prompt"] for row in result.rows] == RIVER[:3]
    assert all(row["runtime"] == "coreinfer" and row["new_tokens"] == 6 for row in result.rows)
    shown = fine(run_cli("generate", "-a", artifact, *RIVER[:2], "--batch", 2, "-n", 6))
    assert [line.strip() for line in shown.out.splitlines() if line] == [row["text"].strip() for row in result.rows[:2]]
    assert "with those of its batch" in shown.err
    assert "2 texts, 12 tokens in " in shown.err
    for flag in (["--lossless"], ["--refresh", "4"], ["--runtime", "transformers"]):
        refused = run_cli("generate", "-a", artifact, RIVER[0], "--batch", 2, *flag)
        assert (refused.code, refused.out) == (2, "")
        assert f"{flag[0]} is for one prompt at a time, --batch is 2" in refused.err
