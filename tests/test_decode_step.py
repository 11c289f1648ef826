"""A step of decoding, in plain torch and on a CPU, against Transformers and masks."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, build, down_modules, tokens
from families import one_thread as one_thread
from numba import njit
from safetensors.torch import load_file, save_model
from slow_truths import generated, logits, naive, some
from stepping import KNOWN, PROMPT, TOTAL, caches, every, kept, known

from coreinfer.decode import compiled_heads, lean, swift
from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.swift import SwiftStep
from coreinfer.neurons import NeuronSet


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


def test_exp_of_scores() -> None:
    """Two units in the last place; what is too small for a float is nearly 0, and never more than 1."""

    @njit
    def each(x: Any, out: Any) -> None:
        for i in range(len(x)):
            out[i] = compiled_heads._exp(x[i])

    x = -np.abs(np.random.default_rng(0).standard_normal(20_000).astype(np.float32)) * 20
    x = np.concatenate([x, np.array([0, -0.0, -1e-30, -87, -88, -1e30, -np.inf], np.float32)])
    out = np.empty_like(x)
    each(x, out)
    wanted = np.exp(x.astype(np.float64))
    assert float(np.max(np.abs(out - wanted) - 2.0**-22 * wanted)) < 1.2e-38
    assert float(out.max()) == 1
