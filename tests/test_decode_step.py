"""A step of decoding, in plain torch and in the kernels (on Triton's interpreter), against Transformers and masks."""

from typing import Any

import families
import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, VOCAB, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import generated, logits, naive, some
from transformers import LlamaConfig

from coreinfer.decode import lean, swift
from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.network import Network
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.swift import SwiftStep
from coreinfer.neurons import NeuronSet

KNOWN = [name for name in FAMILIES if unsupported(build(name)) is None]
known = pytest.mark.parametrize("name", KNOWN)
PROMPT, TOTAL = 18, 26  # past the tiny models' windows of 16


def caches(net: Network, context: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.zeros(len(net.layers), context, net.kv_heads, net.head_dim)
    return keys, torch.zeros_like(keys)


def kept(neurons: NeuronSet) -> list[torch.Tensor]:
    return [torch.from_numpy(ids).long() for ids in neurons.layers]


def every(net: Network) -> list[torch.Tensor]:
    return [torch.arange(net.width)] * len(net.layers)


def test_the_families_that_decode() -> None:
    assert KNOWN == ["OPT", "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3"]
    assert unsupported(build("GPT2")) == "the architecture 'gpt2'"


@known
def test_the_model_computes_on_views_of_the_network(name: str) -> None:
    model, ids = build(name), tokens(1, TOTAL)
    before = logits(model, ids)
    net: Any = read_network(model)
    assert torch.equal(logits(model, ids), before)
    down: Any = down_modules(model, name)[1]
    assert down.weight.data_ptr() == net.layers[1].rows[-1].data_ptr()
    with torch.no_grad():
        net.layers[0].rows[-1][3] += 1.0
        net.layers[0].qkv[0] += 1.0
    assert not torch.equal(logits(model, ids), before)


@known
@torch.no_grad()
def test_steps_equal_the_model(name: str) -> None:
    model, ids = build(name), tokens(1, 60)
    wanted, net = logits(model, ids)[0], read_network(model)
    room = caches(net)
    for position, token in enumerate(ids[0].tolist()):
        assert torch.allclose(step(net, token, position, *room, every(net)), wanted[position], atol=5e-5)


@known
@torch.no_grad()
def test_steps_on_kept_neurons_equal_naive_masks(name: str) -> None:
    model, ids, neurons = build(name), tokens(1, TOTAL), some()
    wanted = naive(model, down_modules(model, name), neurons, ids, PROMPT)[0]
    net = read_network(model)
    room = caches(net)
    for position, token in enumerate(ids[0].tolist()):
        mine = every(net) if position < PROMPT else kept(neurons)
        assert torch.allclose(step(net, token, position, *room, mine), wanted[position], atol=5e-5)


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
    state.keys[:, : keys.shape[1]], state.values[:, : keys.shape[1]] = keys, values
    state.keep(neurons)
    state.position.fill_(TOTAL - 2)
    run = kernels.Step(net, state, neurons.per_layer)
    for position in range(TOTAL - 2, TOTAL):
        token = int(ids[0, position])
        state.token.fill_(token)
        run.run()
        wanted = step(net, token, position, keys, values, kept(neurons))
        assert torch.allclose(state.logits, wanted, atol=2e-5)
        assert int(state.token) == int(wanted.argmax()) == int(state.history[position + 1])
        assert int(state.position) == position + 1
        assert torch.allclose(state.keys[:, position], keys[:, position], atol=1e-5)
        assert torch.allclose(state.values[:, position], values[:, position], atol=1e-5)


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
    assert torch.allclose(state.logits, step(net, 0, 0, keys, values, kept(neurons)), atol=2e-5)
    for kind in (LeanStep, SwiftStep):
        other = State(net, 64)
        kind(net, other, neurons).run()
        assert torch.allclose(other.logits, state.logits, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 5), (300, 500), (2100, 1024)])
def test_a_cpus_products(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """Small and large, on one thread and several, with and without a bias; rows that do not go by four."""
    rng = torch.Generator().manual_seed(0)
    weight, x = torch.randn(shape, generator=rng).to(dtype), torch.randn(shape[1], generator=rng)
    for bias in (None, torch.randn(shape[0], generator=rng)):
        wanted = weight.double() @ x.double() + (0 if bias is None else bias.double())
        found, close = lean.product(weight, bias)(x), 3e-2 if dtype is torch.bfloat16 else 1e-5
        assert torch.allclose(found.double(), wanted, atol=close * float(wanted.abs().max()))
        for threads in (1, 2):
            out = np.empty(shape[0], np.float32)
            swift.product(weight, bias, threads)(x.numpy(), out)
            assert np.allclose(out, wanted.numpy(), atol=1e-4)


@torch.no_grad()
def test_a_bfloat16_step_is_near_the_float32_one() -> None:
    """Caches and weights of 16 bits: the loops round as torch does."""
    models: list[Any] = [build("Llama"), build("Llama").bfloat16()]
    wide, narrow = (read_network(model, bundle=False) for model in models)
    states = [State(net, 64) for net in (wide, narrow, narrow)]
    kinds = (LeanStep, LeanStep, SwiftStep)
    made: list[Any] = [kind(s.network, s, some()) for kind, s in zip(kinds, states, strict=True)]
    for token in tokens(1, 12)[0].tolist():
        for state, one in zip(states, made, strict=True):
            state.token.fill_(token)
            one.run()
        near = [float((state.logits - states[0].logits).abs().max()) for state in states[1:]]
        assert max(near) < 0.1 * float(states[0].logits.abs().max())
    assert torch.allclose(states[1].keys.float(), states[2].keys.float(), atol=0.05)


@torch.no_grad()
def test_a_head_attends_over_several_chunks(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With chunks of 16, a token at 60 adds four parts up, and a window of 16 two of them."""
    from coreinfer.decode import state as places

    for module in (kernels, places):
        monkeypatch.setattr(module, "CHUNK", 16)
    for name in ("Llama", "Mistral"):
        net = read_network(build(name))
        keys, values = caches(net)
        for position, token in enumerate(tokens(1, 60)[0].tolist()):
            step(net, token, position, keys, values, every(net))
        state = State(net, 64)
        state.keys[:], state.values[:] = keys, values
        state.keep(NeuronSet((np.arange(net.width, dtype=np.int32),) * 2, net.width))
        state.position.fill_(60), state.token.fill_(7)
        kernels.Step(net, state, [net.width] * 2).run()
        assert torch.allclose(state.logits, step(net, 7, 60, keys, values, every(net)), atol=2e-5)


@torch.no_grad()
def test_what_is_drawn_follows_the_probabilities(kernels: Any) -> None:
    from coreinfer.kernels.ends import pick

    logits_, temperature = torch.tensor([0.0, 1.0, 2.0, -1.0]), 0.7
    s = State(read_network(build("Llama")), 64)
    s.temperature.fill_(temperature)
    drawn = list[int]()
    for seed in range(400):
        s.seed.fill_(seed), s.position.zero_()
        pick[(1,)](logits_, 4, s.temperature, s.seed, s.token, s.position, s.history, s.best, s.where, s.counts[2],
                   BLOCK=4, PROGRAMS=1, PDL=False)  # fmt: skip
        drawn.append(int(s.token))
    found = np.bincount(drawn, minlength=4) / len(drawn)
    wanted = (logits_ / temperature).softmax(0).numpy()
    assert np.abs(found - wanted).max() < 4 * np.sqrt(0.25 / len(drawn))


@torch.no_grad()
def test_of_equal_logits_the_first_is_picked(kernels: Any) -> None:
    from coreinfer.kernels.ends import pick

    s = State(read_network(build("Llama")), 64)
    flat = torch.zeros(VOCAB)
    flat[[30, 31, 90]] = 5.0
    pick[(4,)](flat, VOCAB, s.temperature, s.seed, s.token, s.position, s.history, s.best, s.where, s.counts[2],
               BLOCK=8, PROGRAMS=4, PDL=False)  # fmt: skip
    assert int(s.token) == 30
    assert not s.counts.any()


@known
@pytest.mark.parametrize("kind", [LeanStep, SwiftStep])
@torch.no_grad()
def test_a_cpus_step_equals_the_step(name: str, kind: type[LeanStep] | type[SwiftStep]) -> None:
    model, ids, neurons = build(name), tokens(1, TOTAL), some()
    net = read_network(model, bundle=False)
    state, room = State(net, 64), caches(net)
    made = kind(net, state, neurons)
    for position, token in enumerate(ids[0].tolist()):
        state.token.fill_(token)
        made.run()
        wanted = step(net, token, position, *room, kept(neurons))
        assert torch.allclose(state.logits, wanted, atol=5e-5)
        assert int(state.token) == int(wanted.argmax()) == int(state.history[position + 1])
        assert torch.allclose(state.keys[:, position], room[0][:, position], atol=1e-5)


@known
@torch.no_grad()
def test_the_decoder_generates_what_transformers_does(name: str) -> None:
    from coreinfer.decode.decoder import Decoder

    model, ids = build(name), torch.tensor([[BOS, *tokens(1, PROMPT - 1)[0].tolist()]])
    wanted = generated(model, ids, 40)[0][PROMPT:]
    decoder = Decoder(model, 64)
    out = model(input_ids=ids, use_cache=True)
    decoder.begin(ids, out.past_key_values, int(out.logits[0, -1].argmax()))
    decoder.keep(NeuronSet((np.arange(decoder.network.width, dtype=np.int32),) * 2, decoder.network.width))
    assert [int(out.logits[0, -1].argmax()), *decoder.tokens(39)] == wanted
    assert decoder.state.history[: PROMPT + 40].tolist() == [*ids[0].tolist(), *wanted]
