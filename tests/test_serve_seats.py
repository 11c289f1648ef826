"""Texts that sit down and leave at any step: each becomes what it would be alone on its own neurons."""

from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, build, tokens
from families import one_thread as one_thread
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coreinfer.decode.continuing import Noise, Sampling, continuing
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.own import own
from coreinfer.decode.picking import drawn, nucleus
from coreinfer.decode.seats import Seat, Table
from coreinfer.grouping import joined
from coreinfer.neurons import NeuronSet, unpack
from coreinfer.settings import StatisticSettings


def a_set(decoder: Decoder, seed: int) -> NeuronSet:
    """Some 40% of each layer, another for each seed."""
    layers, width = len(decoder.mlps), decoder.mlps[0].width
    masks = np.random.default_rng(seed).random((layers, width)) < 0.4
    return unpack([np.packbits(row, bitorder="little").tobytes() for row in masks], width)


@pytest.mark.parametrize("name", ["OPT", "Llama", "Gemma3"])
@pytest.mark.parametrize("lean", [False, True])
def test_texts_that_come_and_go_are_what_they_are_alone(name: str, lean: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if lean:
        from coreinfer.decode.lean import LeanStep

        monkeypatch.setattr(
            "coreinfer.decode.decoder.cpu_step", lambda n, s, k, feed=None, **_: LeanStep(n, s, k, feed)
        )
    decoder = Decoder(build(name), 64)
    carried, sampling = continuing(decoder, StatisticSettings()), Sampling(0.8, 0.9)
    prompts = [torch.tensor([[BOS, *tokens(1, 4 + 2 * n, n)[0].tolist()]]) for n in range(4)]
    sets = [a_set(decoder, n) for n in range(4)]

    def begun(n: int) -> Any:
        return carried.prefill(prompts[n], sets[n], sampling, Noise(n))

    def alone(n: int) -> list[int]:
        start = begun(n)
        decoder.make_room(64, 4)
        decoder.begin(start.ids, start.cache, start.first)
        decoder.keep(sets[n])
        decoder.only([sets[n]])
        decoder.sample(0.8, n)
        decoder.state.feed.top_p[0] = 0.9
        return [start.first, *decoder.tokens(12)]

    wanted = [alone(n) for n in range(4)]
    table, seated, made = Table(decoder), dict[int, Seat](), dict[int, list[int]]()
    plan = [(0,), (0, 1), (0, 1), (1, 0, 2), (2,), (3, 2), (0, 1, 2, 3), (3, 0), (1, 3)] * 3
    for who in plan:
        for n in who:
            if n not in seated:
                start = begun(n)
                seated[n] = Seat(
                    table.take(start.ids, start.cache), start.first, start.ids.shape[1], 0.8, n, 0.9, sets[n]
                )
                made[n] = [start.first]
        table.sit([seated[n] for n in who], joined([sets[n] for n in who]))
        for n, token in zip(who, table.step(), strict=True):
            made[n].append(token)
    for n in range(4):
        assert len(made[n]) > 6
        assert made[n][:13] == wanted[n][: len(made[n])]
        table.leave(seated[n].slot)
    assert sorted(table.free) == [0, 1, 2, 3]


@given(arrays(bool, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 12))))
def test_what_is_a_rows_own(masks: Any) -> None:
    sets = [unpack([np.packbits(row, bitorder="little").tobytes() for row in mask], mask.shape[1]) for mask in masks]
    union = joined(sets)
    found = own(union, sets)
    if not found:
        assert all(one == union for one in sets)
    for layer, rows in enumerate(found):
        for row, one in zip(rows, sets, strict=True):
            assert np.array_equal(union.layers[layer][row > 0], one.layers[layer])


@given(arrays(np.float32, st.integers(1, 50), elements=st.floats(-8, 8, width=32)), st.floats(0, 1))
def test_a_nucleus_is_the_fewest_likeliest_tokens(logits: Any, top_p: float) -> None:
    shares = torch.softmax(torch.from_numpy(logits), 0)
    kept = nucleus(shares, top_p)
    inside = kept > 0
    assert torch.equal(kept[inside], shares[inside])
    if not inside.all():
        assert shares[~inside].max() < shares[inside].min()
    assert kept.sum() >= min(top_p, float(shares.sum())) - 1e-5
    least = shares[inside].min()
    assert shares[shares > least].sum() < top_p + 1e-5 or int(inside.sum()) == 1


def test_a_nucleus_of_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    shares = torch.softmax(torch.randn(500, generator=torch.Generator().manual_seed(0)), 0)
    wide = nucleus(shares, 0.95)
    monkeypatch.setattr("coreinfer.decode.picking.ENOUGH", 4)
    assert torch.equal(nucleus(shares, 0.95), wide)


def test_what_is_drawn_is_of_the_nucleus() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    found = [drawn(logits, 1.0, 7, at, 0.7) for at in range(400)]
    assert set(found) == {0, 1}
    assert abs(found.count(0) / 400 - 0.5 / 0.8) < 0.1
