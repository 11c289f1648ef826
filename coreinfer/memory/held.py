"""The current set's neurons, resident on the device; another set brings only what the last one did not hold."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.decode.network import Layer, Network, plain
from coreinfer.memory.linear import Stream
from coreinfer.memory.plan import BLOCK
from coreinfer.neurons import NeuronSet


class Held:
    """Room for a set's neurons in each layer, and which neuron lies at which place of it.

    What a step computes does not depend on the order of neurons: one that leaves makes room for one that comes, and
    the others stay where they are.
    """

    def __init__(self, network: Network, stream: Stream, bundled: bool) -> None:
        """``bundled``: each neuron's parts side by side, as kernels read them; else matrices, as a CPU's loops do."""
        self.full, self.stream, self.network, self.bundled = network, stream, network, bundled
        self.ids: list[NDArray[np.int32]] = []  # by place; -1: none

    def hold(self, neurons: NeuronSet) -> tuple[Network, NeuronSet]:
        """The network that has these neurons alone, and which of its own they are: all, in each layer.

        Its tensors stay where they are as long as sets have the same number of neurons in each layer.
        """
        if [len(ids) for ids in self.ids] != neurons.per_layer:
            self.ids, self.network = [], self.full  # memory goes before more is taken
            self.network = replace(self.full, layers=self._rooms(neurons.per_layer))
            self.ids = [np.full(count, -1, np.int32) for count in neurons.per_layer]
        for number, ids in enumerate(neurons.layers):
            self._bring(number, ids)
        places = tuple(np.arange(count, dtype=np.int32) for count in neurons.per_layer)
        return self.network, NeuronSet(places, neurons.width)

    def _rooms(self, counts: list[int]) -> tuple[Layer, ...]:
        with torch.inference_mode(False):
            some = zip(self.full.layers, counts, strict=True)
            return tuple(_room(layer, self.full.embedding, count, self.bundled) for layer, count in some)

    @torch.no_grad()
    def _bring(self, number: int, ids: NDArray[np.int32]) -> None:
        """Let the layer hold ``ids``: what comes is read in order, a block at a time, and takes others' places.

        A CPU reads only that. To a GPU the whole layer comes in a row, which is quicker than to pick neurons on the
        host first; a layer of which nothing comes stays where it is.
        """
        held, layer, full = self.ids[number], self.network.layers[number], self.full.layers[number]
        places = np.flatnonzero(~np.isin(held, ids))
        coming = np.setdiff1d(ids, held, assume_unique=True)
        held[places] = -1  # until they are there: whatever interrupts this, nothing is taken for what it is not
        step = max(1, BLOCK // (len(layer.rows) * self.full.hidden * self.full.embedding.element_size()))
        for at in range(0, len(coming), step):
            some, there = coming[at : at + step], places[at : at + step]
            _put(layer, full, self.stream.layer(number), torch.from_numpy(some), torch.from_numpy(there))
            held[there] = some


def _room(layer: Layer, like: Tensor, count: int, bundled: bool) -> Layer:
    """The layer with room for so many neurons, of the dtype and hidden size of ``like`` (n, H) and on its device.

    One tensor (k, P, H); or input rows (k, H) and down columns, in memory (H, k).
    """
    parts, hidden = len(layer.rows), like.shape[1]
    bias = None if layer.in_bias is None else layer.in_bias.new_zeros(parts - 1, count)
    if bundled:
        whole = like.new_empty(count, parts, hidden)
        return replace(layer, rows=whole.unbind(1), neurons=whole, in_bias=bias)
    inputs = (like.new_empty(count, hidden) for _ in range(parts - 1))
    return replace(layer, rows=(*inputs, like.new_empty(hidden, count).T), neurons=None, in_bias=bias)


def _put(layer: Layer, full: Layer, neurons: Tensor, ids: Tensor, places: Tensor) -> None:
    """Neurons ``ids`` (n,) of all (F, P, H), and their biases, at the layer's ``places`` (n,)."""
    ids, places = ids.to(neurons.device), places.to(neurons.device)
    for row, part in zip(layer.rows, neurons.index_select(0, ids).unbind(1), strict=True):
        plain(row)[places] = part
    if layer.in_bias is not None and full.in_bias is not None:
        layer.in_bias[:, places] = full.in_bias[:, ids]
