"""A step of decoding, in plain torch and in the kernels (on Triton's interpreter), against Transformers and masks."""

from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, VOCAB, build, down_modules, tokens
from families import one_thread as one_thread
from safetensors.torch import load_file, save_model
from slow_truths import generated, logits, naive, some
from transformers import LlamaConfig

from coreinfer.decode import lean, swift
from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.network import Network
from coreinfer.decode.picking import drawn
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
def test_a_model_whose_weights_are_views_is_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """By Transformers and by safetensors, after a second reading too; what training asks for are the weights."""
    model, plain, ids = build(name), build(name), tokens(1, 8)
    for _ in range(2):
        read_network(model)
    model.save_pretrained(tmp_path / "views")
    plain.save_pretrained(tmp_path / "plain")
    again: Any = type(model).from_pretrained(tmp_path / "views")
    assert torch.equal(logits(again.eval(), ids), logits(plain, ids))
    one, other = (load_file(tmp_path / kind / "model.safetensors") for kind in ("views", "plain"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    save_model(model, str(tmp_path / "model.safetensors"))
    held = dict(model.state_dict(keep_vars=True))
    assert all(held[key] is weight for key, weight in model.named_parameters())
    model.load_state_dict({key: weight + 1 for key, weight in plain.state_dict().items()})
    assert not torch.equal(logits(model, ids), logits(plain, ids))


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
            many, out = np.stack([x.numpy(), -x.numpy(), *[x.numpy()] * 5]), np.empty((7, shape[0]), np.float32)
            one = np.empty((1, shape[0]), np.float32)
            swift.product(weight, None, threads)(many, out)
            assert np.array_equal(out[1], -out[0])
            assert all(np.array_equal(out[0], row) for row in out[2:])
            swift.product(weight, bias, threads)(many[:1], one)
            assert np.allclose(one[0], wanted.numpy(), atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_columns_are_picked(dtype: torch.dtype) -> None:
    weight, ids = torch.randn(33, 70).to(dtype), torch.tensor([0, 3, 4, 69])
    for whole in (weight, weight[:, ::2].repeat(1, 2), torch.randn(70, 33).to(dtype).T):
        assert torch.equal(swift.picked(whole, ids), whole[:, ids])
        assert swift.picked(whole, ids).is_contiguous()


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
            state.feed.token.fill_(token)
            one.run()
        near = [float((state.feed.logits[0] - states[0].feed.logits[0]).abs().max()) for state in states[1:]]
        assert max(near) < 0.1 * float(states[0].feed.logits[0].abs().max())
    assert torch.allclose(states[1].keys.float(), states[2].keys.float(), atol=0.05)


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


@known
@pytest.mark.parametrize("kind", [LeanStep, SwiftStep])
@torch.no_grad()
def test_a_cpus_step_equals_the_step(name: str, kind: type[LeanStep] | type[SwiftStep]) -> None:
    model, ids, neurons = build(name), tokens(1, TOTAL), some()
    net = read_network(model, bundle=False)
    state, room = State(net, 64), caches(net)
    made = kind(net, state, neurons)
    for position, token in enumerate(ids[0].tolist()):
        state.feed.token.fill_(token)
        made.run()
        wanted = step(net, token, position, *room, kept(neurons))
        assert torch.allclose(state.feed.logits[0], wanted, atol=5e-5)
        assert int(state.feed.token) == int(wanted.argmax()) == int(state.history[0, position + 1])
        assert torch.allclose(state.keys[:, 0, position], room[0][:, position], atol=1e-5)


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
    assert decoder.state.history[0, : PROMPT + 40].tolist() == [*ids[0].tolist(), *wanted]
