"""What a step reads and writes besides weights, at addresses that never change: caches, sets, vectors, counters."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from coreinfer.decode.network import Network
from coreinfer.neurons import NeuronSet

CHUNK = 128  # positions of the cache that one program attends to
SPLITS = 64  # programs that share a block of down columns, at most
PICKERS = 64  # programs that look for the next token


@dataclass
class State:
    """Room for one sequence of up to ``context`` positions.

    Attributes:
        keys, values: (L, C, kv_heads, head_dim).
        ids: int32 (L, F), of which each layer's first k are its neurons.
        token, position: int32 (1,), the next step's input. ``history``: int32 (C + 1,), tokens by position.
        temperature, seed: float32 and int32 (1,), of sampling.
        logits: float32 (V,), of the last step.
    """

    network: Network
    context: int
    keys: Tensor = field(init=False)
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        net, weights = self.network, self.network.embedding
        cache = (len(net.layers), self.context, net.kv_heads, net.head_dim)
        self.keys, self.values = weights.new_zeros(cache), weights.new_zeros(cache)
        self.ids = self._whole(len(net.layers), net.width)
        self.token, self.position, self.seed = self._whole(1), self._whole(1), self._whole(1)
        self.history, self.temperature = self._whole(self.context + 1), self._floats(1)
        self.stream, self.added = self._floats(2, net.hidden), self._floats(2, net.hidden)
        count, side = net.heads * net.head_dim, net.kv_heads * net.head_dim
        self.qkv, self.attended = self._floats(count + 2 * side), self._floats(count)
        self.active, self.logits = self._floats(net.width), self._floats(len(net.head))
        self.chunks = -(-self.context // CHUNK)
        self.parts = self._floats(net.heads, self.chunks, net.head_dim)
        self.tops, self.sums = self._floats(net.heads, self.chunks), self._floats(net.heads, self.chunks)
        self.down_parts = self._floats(SPLITS, net.hidden)
        self.best, self.where = self._floats(PICKERS), self._whole(PICKERS)
        self.counts = self._whole(3, max(net.heads, net.hidden))  # of attention, of down columns, of the pick

    def _floats(self, *shape: int) -> Tensor:
        return torch.zeros(shape, device=self.network.embedding.device)

    def _whole(self, *shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=self.network.embedding.device)

    def keep(self, neurons: NeuronSet) -> None:
        """Let the next steps run on these neurons: one copy of their ids, no weight moves."""
        row = np.zeros((len(neurons.layers), neurons.width), np.int32)
        for out, ids in zip(row, neurons.layers, strict=True):
            out[: len(ids)] = ids
        self.ids.copy_(torch.from_numpy(row), non_blocking=True)

    def begin(self, tokens: Tensor, caches: list[tuple[Tensor, Tensor]], known: int) -> None:
        """Take over a prefill: ``tokens`` (P,), each layer's keys and values (kv_heads, T, head_dim), the last ``T`` of
        ``known`` positions; the step to come feeds the last token.
        """
        self.history[: len(tokens)] = tokens.to(self.history)
        self.token.copy_(tokens[-1:]), self.position.fill_(len(tokens) - 1)
        for number, (k, v) in enumerate(caches):
            some = slice(known - k.shape[1], known)
            self.keys[number, some], self.values[number, some] = k.transpose(0, 1), v.transpose(0, 1)
