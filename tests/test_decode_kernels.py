"""The kernels of a step of decoding, on Triton's interpreter, against the step in plain torch."""

from typing import Any

import families
import numpy as np
import pytest
import torch
from families import VOCAB, build, tokens
from families import one_thread as one_thread
from slow_truths import some
from stepping import TOTAL, caches, every, kept, known
from transformers import LlamaConfig

from coreinfer.decode.families import read_network
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.picking import drawn
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.swift import SwiftStep
from coreinfer.neurons import NeuronSet


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The kernels need Triton; without a GPU its interpreter runs them (``conftest`` asks for it), program by program:
    fewer of them look for the next token.
    """
    pytest.importorskip("triton")
    from coreinfer.decode import state, steps

    for module in (state, steps):
        monkeypatch.setattr(module, "PICKERS", 2)
    return steps


@known
@torch.no_grad()
def test_kernels_equal_the_step(name: str, kernels: Any) -> None:
    model, ids, neurons = build(name), tokens(1, TOTAL), some()
    net = read_network(model)
    keys, values = caches(net)
    for position, token in enumerate(ids[0, :-2].tolist()):
        step(net, token, position, keys, values, every(net))
    state = State(net, 64)
    state.keys[:, 0, : keys.shape[1]], state.values[:, 0, : keys.shape[1]] = keys, values
    state.keep(neurons)
    state.feed.position.fill_(TOTAL - 2)
    run = kernels.Step(net, state, neurons.per_layer)
    for position in range(TOTAL - 2, TOTAL):
        token = int(ids[0, position])
        state.feed.token.fill_(token)
        run.run()
        wanted = step(net, token, position, keys, values, kept(neurons))
        assert torch.allclose(state.feed.logits[0], wanted, atol=2e-5)
        assert int(state.feed.token) == int(wanted.argmax()) == int(state.history[0, position + 1])
        assert int(state.feed.position) == position + 1
        assert torch.allclose(state.keys[:, 0, position], keys[:, position], atol=1e-5)
        assert torch.allclose(state.values[:, 0, position], values[:, position], atol=1e-5)


@pytest.mark.parametrize("act", ["silu", "relu", "gelu", "gelu_pytorch_tanh"])
@torch.no_grad()
def test_every_activation_and_small_tiles(act: str, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles so small that every program goes around several times, over a gated MLP with biases."""
    monkeypatch.setitem(families.FAMILIES, "Llama", LlamaConfig(**families._LLAMA, mlp_bias=True, hidden_act=act))
    net, neurons = read_network(build("Llama")), some((47, 13))
    (keys, values), state = caches(net), State(net, 64)
    state.keep(neurons)
    tiles = kernels.Tiles(rows=2, programs=1, block=16, deep=4, splits=3)
    kernels.Step(net, state, neurons.per_layer, tiles).run()
    assert torch.allclose(state.feed.logits[0], step(net, 0, 0, keys, values, kept(neurons)), atol=2e-5)
    for kind in (LeanStep, SwiftStep):
        other = State(net, 64)
        kind(net, other, neurons).run()
        assert torch.allclose(other.feed.logits[0], state.feed.logits[0], atol=2e-5)


@torch.no_grad()
def test_a_head_attends_over_several_chunks(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks of 16, a token at 60 adds four parts up, and a window of 16 two of them."""
    from coreinfer.decode import state as places

    monkeypatch.setattr(places, "CHUNK", 16)
    for name in ("Llama", "Mistral"):
        net = read_network(build(name))
        keys, values = caches(net)
        for position, token in enumerate(tokens(1, 60)[0].tolist()):
            step(net, token, position, keys, values, every(net))
        state = State(net, 64)
        state.keys[:, 0], state.values[:, 0] = keys, values
        state.keep(NeuronSet((np.arange(net.width, dtype=np.int32),) * 2, net.width))
        state.feed.position.fill_(60), state.feed.token.fill_(7)
        kernels.Step(net, state, [net.width] * 2).run()
        assert torch.allclose(state.feed.logits[0], step(net, 7, 60, keys, values, every(net)), atol=2e-5)


@torch.no_grad()
def test_a_step_of_one_text_is_the_first_rows_alone(kernels: Any) -> None:
    """Though more rows of its feed are in use: vectors between kernels have room for one."""
    net, neurons = read_network(build("Llama")), some()
    keys, values = (torch.randn_like(cache) for cache in caches(net))
    state = State(net, 64, slots=3)
    state.keys[:, 2], state.values[:, 2] = keys, values
    state.keep(neurons)
    state.feed.position.fill_(40), state.feed.token.copy_(torch.tensor([7, 8, 9])), state.feed.slot.fill_(2)
    kernels.Step(net, state, neurons.per_layer).run()
    assert torch.allclose(state.feed.logits[0], step(net, 7, 40, keys, values, kept(neurons)), atol=2e-5)
    assert state.feed.token[1:].tolist() == [8, 9]
    assert state.feed.position.tolist() == [41, 40, 40]


def picked(logits_: torch.Tensor, state: State, block: int, programs: int) -> int:
    """What the kernel makes of logits (V,)."""
    from coreinfer.kernels.ends import pick

    s, f = state, state.feed
    pick[(programs,)](logits_, len(logits_), f.temperature, f.seed, f.token, f.position, f.slot, f.next, f.used,
                      s.history, s.context, s.best, s.where, s.counts[2], BLOCK=block, PROGRAMS=programs, ADVANCE=True,
                      PDL=False)  # fmt: skip
    return int(f.token)


@torch.no_grad()
def test_what_is_drawn_follows_the_probabilities(kernels: Any) -> None:
    """The kernel's and the CPU's."""
    logits_, temperature, many = torch.tensor([0.0, 1.0, 2.0, -1.0]), 0.7, 200
    state = State(read_network(build("Llama")), 64)
    state.feed.temperature.fill_(temperature)
    wanted = (logits_ / temperature).softmax(0).numpy()

    def by_kernel(seed: int) -> int:
        state.feed.seed.fill_(seed), state.feed.position.zero_()
        return picked(logits_, state, 4, 1)

    for draw in (by_kernel, lambda seed: drawn(logits_, temperature, seed, 0)):
        found = np.bincount([draw(seed) for seed in range(many)], minlength=4) / many
        assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / many)


@torch.no_grad()
def test_of_equal_logits_the_first_is_picked(kernels: Any) -> None:
    state = State(read_network(build("Llama")), 64)
    flat = torch.zeros(VOCAB)
    flat[[30, 31, 90]] = 5.0
    assert picked(flat, state, 8, 4) == 30
    assert not state.counts.any()
