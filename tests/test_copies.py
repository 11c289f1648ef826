"""Gathered weights lie where another set's did, and are what they would be elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
from families import build
from quantising import both, narrow
from stepping import KNOWN

from coreinfer.decode.copies import LINE, LOOSE, Copies
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.decode.network import gathered
from coreinfer.neurons import NeuronSet, top
from coreinfer.quantised.packed import Packed


def drawn(network: object, share: float, seed: int) -> NeuronSet:
    layers, width = len(network.layers), network.width  # type: ignore[attr-defined]
    return top(np.random.default_rng(seed).random((layers, width)), np.full(layers, round(share * width)))


def flat(weight: object) -> list[torch.Tensor]:
    return [weight.data, weight.scales] if isinstance(weight, Packed) else [weight]  # type: ignore[list-item]


def check(network: object, neurons: NeuronSet, copies: Copies) -> None:
    for layer, ids in zip(network.layers, neurons.layers, strict=True):  # type: ignore[attr-defined]
        some = torch.from_numpy(ids.astype(np.int64))
        rows, down, _ = gathered(layer, some, copies.rows, copies.columns)
        plain_rows, plain_down, _ = gathered(layer, some)
        for made, wanted in zip([*rows, down], [*plain_rows, plain_down], strict=True):
            for x, y in zip(flat(made), flat(wanted), strict=True):
                assert torch.equal(x, y)
                assert x.dtype == y.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", KNOWN)
def test_what_is_gathered_is_what_was_asked_for(name: str, dtype: torch.dtype) -> None:
    model: Any = build(name)
    network = read_network(model.to(dtype), bundle=False)
    first = drawn(network, 0.5, 0)
    copies = Copies(network.layers, first.per_layer, [])
    check(network, first, copies)
    second = drawn(network, 0.4, 1)
    again = Copies(network.layers, second.per_layer, [copies.memory])
    assert again.memory is copies.memory
    check(network, second, again)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_columns_however_they_lie(dtype: torch.dtype) -> None:
    weight, ids = torch.randn(33, 70).to(dtype), torch.tensor([0, 3, 4, 69])
    for whole in (weight, weight[:, ::2].repeat(1, 2), torch.randn(70, 33).to(dtype).T):
        copies = Copies((), (), [np.empty(0, np.uint8)])
        copies.memory = np.empty(4 * 33 * 4, np.uint8)
        made = copies.columns(whole, ids)
        assert torch.equal(made, whole[:, ids])
        assert made.is_contiguous()


@both
def test_quantised_ones_too(dtype: str) -> None:
    network = read_network(narrow("Llama", dtype), bundle=False)
    per_layer = (neurons := drawn(network, 0.5, 0)).per_layer
    spare = [np.full(Copies(network.layers, per_layer, []).memory.nbytes, 255, np.uint8)]
    used, copies = spare[0], Copies(network.layers, per_layer, spare)
    assert copies.memory is used
    check(network, neurons, copies)


def test_memory_that_does_not_fit_goes() -> None:
    network = read_network(build("Llama"), bundle=False)
    wanted = drawn(network, 0.5, 0).per_layer
    size = Copies(network.layers, wanted, []).memory.nbytes
    for nbytes, stays in ((size, True), (size // 2, False), (2 * LOOSE * size, False)):
        spare = [np.empty(nbytes, np.uint8)]
        held = spare[0]
        assert (Copies(network.layers, wanted, spare).memory is held) == stays
        assert spare == []


def test_weights_begin_with_a_line_of_the_cache() -> None:
    network = read_network(build("Llama"), bundle=False)
    copies = Copies(network.layers, (neurons := drawn(network, 0.37, 0)).per_layer, [])
    some = torch.from_numpy(neurons.layers[0].astype(np.int64))
    rows, down, _ = gathered(network.layers[0], some, copies.rows, copies.columns)
    assert all(x.data_ptr() % LINE == 0 for x in (*rows, down))  # type: ignore[union-attr]


def test_all_of_a_layers_neurons_need_no_memory_and_take_none() -> None:
    network = read_network(build("Llama"), bundle=False)
    spare = [np.empty(100, np.uint8)]
    assert Copies(network.layers, [network.width] * len(network.layers), spare).memory.nbytes == 0
    assert len(spare) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_set_that_comes_again_makes_the_same_tokens(dtype: torch.dtype) -> None:
    model: Any = build("Llama")
    decoder, ids = Decoder(model.to(dtype), 64), torch.tensor([[1, 5, 9, 4]])
    memories = list[Any]()

    def made(share: float, seed: int) -> list[int]:
        out = model(input_ids=ids, use_cache=True)
        decoder.begin(ids, out.past_key_values, 7)
        decoder.keep(drawn(decoder.network, share, seed))
        memories.append(decoder._step.copies.memory)  # type: ignore[union-attr]
        return list(decoder.tokens(20))

    wanted = [made(0.4, 0), made(0.42, 1), made(1.0, 2)]
    assert [made(0.4, 0), made(0.42, 1), made(1.0, 2)] == wanted
    assert all(memories[0] is memories[i] for i in (1, 3, 4)), "also when all neurons came between"
