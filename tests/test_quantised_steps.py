"""Steps on quantised weights, each way that there is, against plain torch, Transformers and masks."""

from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_cli
from families import BOS, FAMILIES, LAYERS, WIDTH, build, down_modules, tokens, twice
from families import one_thread as one_thread
from quantising import KNOWN, both, known, narrow
from quantising import float32_around as float32_around
from slow_truths import greedy, logits, naive, some
from stepping import caches, every, kept
from test_decode_kernels import kernels as kernels

from coreinfer import CoreInferError, slim
from coreinfer.bench import limits
from coreinfer.bench.plan import Plan
from coreinfer.bench.report import summary
from coreinfer.bench.run import measure
from coreinfer.clock import Clock
from coreinfer.decode import swift
from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.lean import LeanStep
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.swift import SwiftStep
from coreinfer.models import quantise
from coreinfer.quantised.linear import QuantisedLinear
from coreinfer.quantised.packed import Packed, quantised
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

PROMPT, TOTAL = 18, 22  # past the tiny models' windows of 16
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}


@known
@both
@torch.no_grad()
def test_plain_steps_equal_the_model(name: str, dtype: str) -> None:
    """Whose modules compute on views of what the steps read; on kept neurons, naive masks."""
    model, ids, neurons = narrow(name, dtype), tokens(1, TOTAL), some()
    before = logits(model, ids)
    wanted = naive(model, down_modules(model, name), neurons, ids, PROMPT)[0]
    assert unsupported(model) is None
    net: Any = read_network(model)
    assert torch.allclose(logits(model, ids), before, atol=1e-5)
    room = caches(net)
    for position, token in enumerate(ids[0].tolist()):
        mine = every(net) if position < PROMPT else kept(neurons)
        assert torch.allclose(step(net, token, position, *room, mine), wanted[position], atol=5e-5)
    net.layers[0].qkv.data[:] = 0
    net.layers[1].rows[-1].data[3] = 0
    assert not torch.allclose(logits(model, ids), before, atol=1e-3)
    down: Any = down_modules(model, name)[1]
    assert not down.packed.data[3].any()


@pytest.mark.parametrize("name", ["OPT", "Qwen3", "Gemma2", "Phi3"])
@both
@torch.no_grad()
def test_quick_steps_equal_the_plain_one(name: str, dtype: str, kernels: Any) -> None:
    """The kernels on Triton's interpreter, compiled loops, and torch without them."""
    model, ids, neurons = narrow(name, dtype), tokens(1, TOTAL)[0].tolist(), some()
    net = read_network(model)
    room = caches(net)
    for position, token in enumerate(ids[:-1]):
        step(net, token, position, *room, every(net))
    states = [State(net, 64) for _ in range(3)]
    for state in states:
        state.keys[:, 0], state.values[:, 0] = room
        state.keep(neurons)
        state.feed.position.fill_(TOTAL - 1), state.feed.token.fill_(ids[-1])
    wanted = step(net, ids[-1], TOTAL - 1, *room, kept(neurons))
    tiles = kernels.Tiles(rows=32, programs=1, block=64, deep=32, splits=2)  # large ones are quick on the interpreter
    runs: list[Any] = [
        kernels.Step(net, states[0], neurons.per_layer, tiles), SwiftStep(net, states[1], neurons),
        LeanStep(net, states[2], neurons),
    ]  # fmt: skip
    for run, state in zip(runs, states, strict=True):
        run.run()
        assert torch.allclose(state.feed.logits[0], wanted, atol=2e-5)
        assert int(state.feed.token) == int(wanted.argmax())


@both
@torch.no_grad()
def test_small_tiles_and_a_width_that_is_no_power_of_two(dtype: str, kernels: Any) -> None:
    """Every program goes around several times; a hidden size of 192 fills three of four groups that are read."""
    config: Any = twice(FAMILIES["Llama"])
    config.hidden_size, config.head_dim = 192, 48
    net, neurons = read_network(quantise(build("Llama", config), dtype, "cpu")), some((13, 5))
    room, state = caches(net), State(net, 64)
    state.keep(neurons)
    tiles = kernels.Tiles(rows=8, programs=1, block=32, deep=2, splits=3)
    kernels.Step(net, state, neurons.per_layer, tiles).run()
    wanted = step(net, 0, 0, *room, kept(neurons))
    assert torch.allclose(state.feed.logits[0], wanted, atol=2e-5)
    other = State(net, 64)
    SwiftStep(net, other, neurons).run()
    assert torch.allclose(other.feed.logits[0], wanted, atol=2e-5)


@pytest.mark.parametrize("across", [False, True])
@pytest.mark.parametrize("shape", [(7, 128), (5, 64), (130, 320), (2050, 192)])
@both
def test_a_cpus_products(dtype: str, shape: tuple[int, int], across: bool) -> None:
    """On one thread and several, with and without a bias; 8 bits have columns that do not go by groups."""
    shape = shape[0], shape[1] - (28 if dtype == "int8" else 0)
    rng = torch.Generator().manual_seed(0)
    weight = quantised(torch.randn(shape, generator=rng), int(dtype[3:]))
    dense = weight.dequantised().double()
    dense, x = dense.T if across else dense, torch.randn(shape[not across], generator=rng)
    for bias in (None, torch.randn(shape[across], generator=rng)):
        wanted = dense @ x.double() + (0 if bias is None else bias.double())
        for threads in (1, 2):
            many, out = np.stack([x.numpy(), -x.numpy(), x.numpy()]), np.empty((3, shape[across]), np.float32)
            swift.quantised_product(weight, bias, threads, across)(many, out)
            assert np.allclose(out[0], wanted.numpy(), atol=1e-4)
            assert np.array_equal(out[0], out[2])
            assert not np.array_equal(out[0], out[1])


@both
@torch.no_grad()
def test_shared_products(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small ones too, so that some threads have nothing to do."""
    monkeypatch.setattr(swift, "SPLIT", 0)
    for rows in (3, 64, 200):
        weight = quantised(torch.randn(rows, 64), int(dtype[3:]))
        for across, x in ((False, torch.randn(64)), (True, torch.randn(rows))):
            out = np.empty(weight.shape[across], np.float32)
            swift.quantised_product(weight, None, 3, across)(x.numpy()[None], out[None])
            dense = weight.dequantised()
            assert np.allclose(out, ((dense.T if across else dense) @ x).numpy(), atol=1e-4)


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "OPT", "Phi3"])
@both
def test_both_runtimes_equal_the_naive_reference(name: str, dtype: str) -> None:
    """Transformers' generate inside of slim, which slices quantised modules, and the project's own steps."""
    ids = torch.tensor([[BOS, *tokens(1, 11)[0].tolist()]])
    model = narrow(name, dtype)
    wanted = greedy(model, down_modules(model, name), some(), ids, 12)
    runtimes = Runtimes(model, StatisticSettings(), 0)
    for runtime in ("transformers", "coreinfer"):
        made = runtimes.run(runtime, ids, some(), 12, Clock(None), lambda token: False, GREEDY)
        assert (made.ids[0].tolist(), made.runtime) == (wanted, runtime)


@both
def test_slim_in_one_forward(dtype: str) -> None:
    model, ids, neurons = narrow("Llama", dtype), tokens(1, TOTAL), some()
    wanted = naive(model, down_modules(model, "Llama"), neurons, ids, PROMPT)
    with slim(model, neurons, prompt_tokens=PROMPT):
        assert torch.allclose(logits(model, ids, use_cache=False), wanted, atol=2e-5)


def test_weights_that_change_are_seen() -> None:
    model: Any = narrow("Llama", "int8")
    ids = torch.tensor([[BOS, *tokens(1, 11)[0].tolist()]])
    runtimes = Runtimes(model, StatisticSettings(), 0)

    def made() -> list[int]:
        return runtimes.run("coreinfer", ids, some(), 12, Clock(None), lambda t: False, GREEDY).ids[0].tolist()

    before, head = made(), model.get_output_embeddings()
    head.packed = Packed(head.data.flip(0), head.scales.flip(0))
    assert made() == greedy(model, down_modules(model, "Llama"), some(), ids, 12) != before


def test_a_model_that_is_quantised_in_part_is_transformers_business() -> None:
    model, other = narrow("Llama", "int8"), narrow("Llama", "int4")
    for path in ("model.layers.1.mlp.up_proj", "model.layers.0.self_attn.v_proj"):
        owner, _, last = path.rpartition(".")
        setattr(model.get_submodule(owner), last, other.get_submodule(path))
    assert unsupported(model) == "layers that are quantised in part, or differently"
    with pytest.raises(CoreInferError, match="cannot serve layers that are quantised in part"):
        Runtimes(model, StatisticSettings(), 0).run(
            "coreinfer", tokens(1, 5), some(), 2, Clock(None), lambda token: False, GREEDY
        )


@both
def test_bytes_read(dtype: str) -> None:
    """Of half the neurons, their weights and scales, those of attention and of the int8 head, and the cache."""
    net = read_network(narrow("Llama", dtype), bundle=False)
    h, size = 64, 4
    qkv, out = (2 * h) * h, h * h  # 4 heads and twice 2 for keys and values, 16 each
    neurons = LAYERS * (WIDTH // 2) * 3
    rows = 96 + LAYERS * (3 * h) + neurons
    scales_of = {"int8": 4 * rows, "int4": 4 * 96 + 2 * (rows - 96)}[dtype]
    inner = LAYERS * (qkv + out) + neurons * h
    weights = 96 * h + (inner if dtype == "int8" else inner // 2)
    cache = LAYERS * 2 * 10 * 32
    assert net.bytes_read([WIDTH // 2] * LAYERS, 10) == weights + scales_of + size * (h + cache)
    assert net.bytes_read([WIDTH // 2] * LAYERS, 10, dense=True) == size * (96 * h + inner + h + cache)


@both
def test_a_bench(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Peers run on the weights as they were; their limits are by their own bytes."""
    monkeypatch.setattr(limits, "CPU_BYTES", 1 << 22)
    seen = list[int]()
    model = build("Llama", twice(FAMILIES["Llama"]))
    hook = model.register_forward_pre_hook(
        lambda module, args: seen.append(sum(isinstance(x, QuantisedLinear) for x in module.modules()))
    )
    made = measure(model, "tiny", Plan(8, 4, 32, (1.0, 0.5)), dtype=dtype)
    hook.remove()
    row = summary(made)
    assert row["dtype"] == made.dtype == dtype
    assert {"transformers, keep 1, float32", "coreinfer, keep 1"} <= set(row["peers"])
    assert [s.dtype for s in made.speeds] == ["float32", "float32", dtype, dtype, dtype]
    assert made.speeds[2].limit > 2.5 * made.speeds[0].limit
    first = seen.index(15)  # prefill with them; all that ran before, ran on the others
    assert not any(seen[:first])
    assert len(seen[first:]) == 15


def test_by_the_command_line(artifact: Any) -> None:
    """A model that is quantised when it is loaded is still the one that the artifact was built with."""
    result = run_cli(
        "generate",
        "--artifact",
        artifact,
        "--dtype",
        "int8",
        "--max-new-tokens",
        4,
        "--json",
        "-q",
        "A plain question?",
    )
    assert result.code == 0, result.err
    assert result.rows[0]["runtime"] == "coreinfer"


def test_all_families_are_covered() -> None:
    assert len(KNOWN) == 8
