"""Layers one after another: two buffers, one current set, modules that compute on both."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import LAYERS, WIDTH, build, tokens
from families import one_thread as one_thread
from slow_truths import logits, some
from streamed import each, opened
from test_decode_kernels import kernels as kernels
from torch import Tensor

from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.decode.network import plain
from coreinfer.decode.reference import step
from coreinfer.memory import buffers
from coreinfer.memory.buffers import DoubleBuffer
from coreinfer.memory.held import Held
from coreinfer.memory.linear import StreamedLinear
from coreinfer.mlp import gather_mlp
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet


class Host:
    """Layers whose numbers say which they are; remembers what was copied."""

    def __init__(self, count: int) -> None:
        self.layers = [torch.full((4, 3, 2), float(number)) for number in range(count)]
        self.copied = list[int]()

    def __call__(self, number: int) -> Tensor:
        self.copied.append(number)
        return self.layers[number]


def test_the_next_layer_is_on_its_way() -> None:
    host = Host(5)
    stream = DoubleBuffer(host, 5, torch.device("cpu"))
    host.copied.clear()
    for number in range(5):
        for _ in range(3):  # gate, up and down
            assert torch.equal(stream.layer(number), host.layers[number])
        assert host.copied == list(range(min(5, number + 2)))
    assert len({stream.layer(n).data_ptr() for n in range(5)}) == 2


@pytest.mark.parametrize("order", [(0, 1, 2, 0, 1, 2), (2, 0), (1, 1, 0, 2), (2, 1, 0)])
def test_any_order_is_right(order: Sequence[int]) -> None:
    host = Host(3)
    stream = DoubleBuffer(host, 3, torch.device("cpu"))
    for number in order:
        assert torch.equal(stream.layer(number), host.layers[number])


def test_a_copy_that_fails_is_not_taken_for_a_layer() -> None:
    host = Host(2)
    stream = DoubleBuffer(host, 2, torch.device("cpu"))
    stream.layer(0)
    good, host.layers[1] = host.layers[1], torch.zeros(9, 9)
    for _ in range(2):
        stream.holds[1] = -1
        with pytest.raises(RuntimeError):
            stream.layer(1)
    host.layers[1] = good
    assert torch.equal(stream.layer(1), good)


def test_a_host_without_room_copies_from_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlp: Any = find_mlps(opened("Llama", tmp_path))[0]
    mapped = mlp.down.stream
    assert buffers.free_memory() > 0
    monkeypatch.setattr(buffers, "free_memory", lambda: buffers.SPARED + 2 * mapped.shape.layer_bytes - 1)
    assert buffers.host_of(mapped) == mapped.layer
    stream = DoubleBuffer(buffers.host_of(mapped), 2, torch.device("cpu"))
    assert torch.equal(stream.layer(1), mapped.layer(1))


@each
def test_prefill_equals_the_model_in_both_streams(name: str, tmp_path: Path) -> None:
    ids, model = tokens(2, 20), opened(name, tmp_path)
    wanted = logits(build(name), ids)
    assert torch.allclose(logits(model, ids), wanted, atol=1e-6)
    modules = [m for m in model.modules() if isinstance(m, StreamedLinear)]
    mapped: Any = modules[0].stream
    twice = DoubleBuffer(mapped.layer, len(mapped), torch.device("cpu"))
    for module in modules:
        module.stream = twice
    assert torch.allclose(logits(model, ids), wanted, atol=1e-6)


@each
def test_what_slim_gathers_is_what_it_gathers_of_the_whole_model(name: str, tmp_path: Path) -> None:
    ids = np.array([1, 5, 40], np.int32)
    for mlp, whole in zip(find_mlps(opened(name, tmp_path)), find_mlps(build(name)), strict=True):
        mine, wanted = gather_mlp(mlp, ids), gather_mlp(whole, ids)
        for key, module in wanted.items():
            assert type(mine[key]) is torch.nn.Linear
            assert torch.equal(mine[key].weight, module.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["Llama", "OPT", "Phi3"])
def test_another_set_brings_only_what_is_new(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coreinfer.memory import held as module

    brought = list[tuple[int, ...]]()
    put = module._put

    def seen(*args: Any) -> None:
        brought.append(tuple(args[3].tolist()))
        put(*args)

    monkeypatch.setattr(module, "_put", seen)
    model = opened(name, tmp_path)
    decoder, rows = Decoder(model, 64), build(name)
    assert isinstance(decoder.held, Held)
    held, full = decoder.held, Decoder(rows, 64).network
    addresses = set[tuple[int, ...]]()
    known: list[set[int]] = [set(), set()]
    for seed in (3, 3, 4, 5):
        neurons = some(seed=seed)
        brought.clear()
        network, every = held.hold(neurons)
        assert every.per_layer == neurons.per_layer
        assert [set(x) for x in brought] == [
            set(ids.tolist()) - k for ids, k in zip(neurons.layers, known, strict=True) if set(ids.tolist()) - k
        ]
        assert all(list(x) == sorted(x) for x in brought)
        known = [set(ids.tolist()) for ids in neurons.layers]
        for number, ids in enumerate(held.ids):
            assert sorted(ids.tolist()) == neurons.layers[number].tolist()
            for mine, whole in zip(network.layers[number].rows, full.layers[number].rows, strict=True):
                assert torch.equal(plain(mine), plain(whole)[torch.from_numpy(ids).long()])
            bias = network.layers[number].in_bias
            if bias is not None:
                assert torch.equal(bias, full.layers[number].in_bias[:, torch.from_numpy(ids).long()])  # type: ignore[index]
        addresses.add(tuple(plain(row).data_ptr() for layer in network.layers for row in layer.rows))
    assert len(addresses) == 1
    network, _ = held.hold(some((5, 30)))
    assert [len(layer.rows[0]) for layer in network.layers] == [5, 30]


def test_what_interrupts_a_set_spoils_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coreinfer.memory import held as module

    model, put, left = opened("Llama", tmp_path), module._put, [5]

    def failing(*args: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        put(*args)

    held = Decoder(model, 64).held
    assert held is not None
    monkeypatch.setattr(module, "BLOCK", 2000)  # a few neurons at a time
    monkeypatch.setattr(module, "_put", failing)
    held.hold(some((4, 4)))
    left[0] = 4
    with pytest.raises(KeyboardInterrupt):
        held.hold(some())
    left[0] = 1000
    network, _ = held.hold(some())
    full = Decoder(build("Llama"), 64).network
    for number, ids in enumerate(held.ids):
        assert sorted(ids.tolist()) == some().layers[number].tolist()
        mine, whole = (plain(net.layers[number].rows[-1]) for net in (network, full))
        assert torch.equal(mine, whole[torch.from_numpy(ids).long()])


@torch.no_grad()
def test_kernels_run_on_the_set_alone(tmp_path: Path, kernels: Any) -> None:
    """As on a GPU: a step made once runs on one set after another, all in the same room; neurons with biases."""
    decoder, full = Decoder(opened("OPT", tmp_path), 64), read_network(build("OPT"))
    stream = DoubleBuffer(decoder.held.stream.layer, LAYERS, torch.device("cpu"))  # type: ignore[union-attr]
    held, step_on = Held(decoder.network, stream, True), None
    for seed in (3, 4):
        neurons = some(seed=seed)
        network, every = held.hold(neurons)
        state = decoder.state
        state.keep(every)
        state.feed.position.zero_(), state.feed.token.fill_(7)
        step_on = step_on or kernels.Step(network, state, every.per_layer)
        step_on.run()
        room = torch.zeros(LAYERS, 64, full.kv_heads, full.head_dim)
        wanted = step(full, 7, 0, room, room.clone(), [torch.from_numpy(ids).long() for ids in neurons.layers])
        assert torch.allclose(state.feed.logits[0], wanted, atol=2e-5)


def test_all_neurons_are_a_set_too(tmp_path: Path) -> None:
    every = NeuronSet((np.arange(WIDTH, dtype=np.int32),) * 2, WIDTH)
    held = Decoder(opened("Llama", tmp_path), 64).held
    assert held is not None
    network, same = held.hold(every)
    assert same == every
    assert torch.equal(plain(network.layers[0].rows[0]), plain(Decoder(build("Llama"), 64).network.layers[0].rows[0]))
