"""Rows of a step do not know each other, and what is drafted on kept neurons ends as the dense model's own text."""

import math
from typing import Any

import pytest
import torch
from families import BOS, build, tokens
from families import one_thread as one_thread
from hypothesis import given
from hypothesis import strategies as st
from slow_truths import generated, some

from coreinfer.decode.decoder import Decoder
from coreinfer.decode.drafting import MOST, ROW, Drafting, line
from coreinfer.decode.families import read_network
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.lossless import Drafts, Lossless, together
from coreinfer.decode.reference import step
from coreinfer.decode.state import Feed, State
from coreinfer.decode.swift import SwiftStep
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.neurons import every

PROMPT = 12
FAMILIES = ("OPT", "Llama", "Mistral", "Qwen3", "Gemma2", "Gemma3", "Phi3")
known = pytest.mark.parametrize("name", FAMILIES)
steps = pytest.mark.parametrize("kind", [LeanStep, SwiftStep])


@known
@steps
@torch.no_grad()
def test_rows_of_one_text_equal_steps_in_turn(name: str, kind: Any) -> None:
    """Twenty tokens, past the window of 16, in blocks of several rows in a slot that is not the first."""
    net, neurons, ids = read_network(build(name), bundle=False), some(), tokens(1, 20)[0].tolist()
    kept = [torch.from_numpy(x).long() for x in neurons.layers]
    keys, values = torch.zeros(2, len(net.layers), 64, net.kv_heads, net.head_dim)
    wanted = [step(net, token, at, keys, values, kept) for at, token in enumerate(ids)]
    state, feed = State(net, 64, 3), Feed(net, 7)
    made, at = kind(net, state, neurons, feed), 0
    for count in (1, 7, 5, 7):
        feed.count = count
        feed.token[:count], feed.position[:count] = torch.tensor(ids[at : at + count]), torch.arange(at, at + count)
        feed.slot.fill_(2)
        made.look()
        for row in range(count):
            assert torch.allclose(feed.logits[row], wanted[at + row], atol=5e-5)
        at += count
    assert torch.allclose(state.keys[:, 2], keys, atol=1e-5)
    assert not state.keys[:, :2].any()


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_is_the_same_to_the_last_bit_whoever_is_beside_it(dtype: torch.dtype) -> None:
    """Rows of several texts; one leaves, and the last takes its place."""
    model: Any = build("Llama")
    net, neurons = read_network(model.to(dtype), bundle=False), some()
    together_, alone = State(net, 64, 3), [State(net, 64) for _ in range(3)]
    texts = tokens(3, 9)
    many = SwiftStep(net, together_, neurons)
    ones = [SwiftStep(net, state, neurons) for state in alone]
    for at in range(9):
        rows = together_.feed.slot[: together_.feed.count].tolist()
        for row, text in enumerate(rows):
            together_.feed.token[row] = alone[text].feed.token[0] = texts[text, at]
        many.run()
        for row, text in enumerate(rows):
            ones[text].run()
            assert torch.equal(together_.feed.logits[row], alone[text].feed.logits[0])
            assert int(together_.history[text, at + 1]) == int(alone[text].feed.token[0])
        if at == 4:
            together_.feed.drop(0)
            assert together_.feed.slot[:2].tolist() == [2, 1]


@known
def test_a_lossless_text_is_the_dense_one(name: str) -> None:
    """A random model's drafts are mostly wrong: each pass then ends early."""
    model, ids = build(name), torch.tensor([[BOS, *tokens(1, PROMPT - 1)[0].tolist()]])
    wanted = generated(model, ids, 50)[0][PROMPT:]
    made = decoded(model, ids, 49, 0.0)
    assert made.texts[0] == wanted
    assert made.drafts.drafted > 0


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny models' drafts do not pay: two or three are made all the same, but in the tests of ``Drafting`` itself."""
    monkeypatch.setattr(Lossless, "ahead", lambda self, room: min(2 + self._made % 2, room))


class Decoded:
    """The first token and those after it, lossless and by dense steps alone."""

    def __init__(self, texts: tuple[list[int], list[int]], drafts: Drafts) -> None:
        self.texts, self.drafts = texts, drafts


def decoded(model: Any, ids: torch.Tensor, count: int, temperature: float, neurons: Any = None) -> Decoded:
    out = model(input_ids=ids, use_cache=True)
    first, decoder, texts = int(out.logits[0, -1].argmax()), Decoder(model, 64), list[list[int]]()
    sets = neurons or some(), every(len(decoder.network.layers), decoder.network.width)
    for number, chosen in enumerate(sets):
        decoder.begin(ids, out.past_key_values, first)
        decoder.keep(chosen)
        decoder.sample(temperature, 11)
        maker = decoder if number else decoder.lossless()
        texts.append([first, *maker.tokens(count)])
        if not number:
            drafts = maker.drafts()  # type: ignore[union-attr]
    return Decoded((texts[0], texts[1]), drafts)


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_what_is_drawn_is_what_dense_steps_draw(temperature: float) -> None:
    """With half of the neurons a draft is sometimes right; with all of them always."""
    ids = torch.tensor([[BOS, *tokens(1, PROMPT - 1)[0].tolist()]])
    made = decoded(build("Llama"), ids, 49, temperature, some((40, 44)))
    assert made.texts[0] == made.texts[1]
    assert 0 < made.drafts.accepted < made.drafts.drafted
    sure = decoded(build("Llama"), ids, 49, temperature, every(2, 48))
    assert sure.texts[0] == sure.texts[1]
    assert sure.drafts.drafted == sure.drafts.accepted > 0


@given(
    rate=st.floats(0, 1), draft_s=st.floats(0.01, 1), dense_s=st.floats(0.01, 1), more=st.floats(0, 0.2),
    room=st.integers(0, 40),
)  # fmt: skip
def test_it_drafts_as_many_as_pay(rate: float, draft_s: float, dense_s: float, more: float, room: int) -> None:
    """The best by the formula in closed form, wherever all costs are known."""
    known_s = {n: dense_s + more * (n - 1) for n in range(1, MOST + 2)}
    drafting = Drafting(draft_s, known_s, rate, _passes=9)
    chosen = drafting.next(room)

    def worth(n: int) -> float:
        tokens_ = n + 1 if math.isclose(rate, 1, abs_tol=1e-6) else (1 - rate ** (n + 1)) / (1 - rate)
        return tokens_ / (n * draft_s + known_s[n + 1])

    assert 0 <= chosen <= min(MOST, room)
    assert worth(chosen) >= max(worth(n) for n in range(min(MOST, room) + 1)) * (1 - 1e-4)


def test_it_gives_up_and_tries_again() -> None:
    drafting = Drafting()
    for took in (1.4, 1.0, 1.1):  # the first passes show what a dense step takes
        assert drafting.next(99) == 0
        drafting.saw(0, 0, 0.0, took)
    assert drafting.one_s == 1.0
    assert drafting.next(99) == 2  # carefully
    for _ in range(20):
        drafting.saw(1, 1, 0.1, 1.1)
    assert drafting.next(99) == MOST
    for _ in range(40):
        drafting.saw(4, 0, 4.0, 1.5)
    found = [drafting.next(99) for _ in range(40)]
    assert (found.count(0), found.count(2)) == (38, 2)
    for _ in range(40):
        drafting.saw(2, 2, 0.2, 1.1)
    assert drafting.next(99) > 0
    assert drafting.next(0) == 0


def test_a_line_goes_through_what_was_measured() -> None:
    assert math.isclose(line({1: 2.0})(7), 2.0 * (1 + 6 * ROW))
    assert math.isclose(line({1: 2.0, 3: 3.0, 5: 4.0})(9), 6.0)
    assert line({1: 4.0, 5: 2.0})(9) == 3.0  # noise: more rows do not take less


def test_drafts_of_parts_add_up() -> None:
    assert together([None, None]) is None
    assert together([Drafts(10, 5, 1.0), None, Drafts(30, 30, 2.0)]) == Drafts(40, 35, 1.75)
    assert together([Drafts(0, 0, 1.0)]) == Drafts(0, 0, 1.0)


def test_the_engine_says_what_came_of_it(engine: Engine) -> None:
    text, asked = "The river that runs through the old town", {"max_new_tokens": 24}
    dense = engine.generate(text, policy="dense", **asked)  # type: ignore[arg-type]
    made = engine.generate(text, lossless=True, **asked)  # type: ignore[arg-type]
    assert made.text == dense.text
    assert made.prediction.keep == engine.artifact.manifest.default_keep / 2
    assert dense.drafts is None
    assert made.drafts is not None
    assert 0 < made.drafts.accepted <= made.drafts.drafted
    again = engine.generate(text, lossless=True, refresh=8, **asked)  # type: ignore[arg-type]
    assert (again.text, again.refreshes) == (dense.text, 2)


def test_a_refresh_goes_on_with_the_same_noise(engine: Engine) -> None:
    options: dict[str, Any] = {"do_sample": True, "top_k": 0, "temperature": 0.9, "max_new_tokens": 20}
    texts = list[str]()
    for how in ({"policy": "dense"}, {"lossless": True}, {"lossless": True, "refresh": 7}):
        torch.manual_seed(2)
        texts.append(engine.generate("The river that runs", **how, **options).text)
    assert texts[1:] == texts[:1] * 2


def test_more_positions_than_the_steps_know(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.runtime.reach", lambda model: 16)
    made = engine.generate("The river that runs through the old town", max_new_tokens=12)
    assert (made.runtime, made.new_tokens) == ("transformers", 12)
    with pytest.raises(CoreInferError, match=r"cannot serve \d+ tokens, of which they hold 16: leave out --lossless"):
        engine.generate("The river that runs through the old town", max_new_tokens=12, lossless=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"runtime": "transformers"}, "lossless is coreinfer's own way to decode: let --runtime be auto"),
        ({"top_k": 5, "do_sample": True}, "that only Transformers' generate knows: leave out --lossless"),
    ],
)  # fmt: skip
def test_what_it_cannot_do(engine: Engine, options: dict[str, Any], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        engine.generate("a river", lossless=True, max_new_tokens=2, **options)
