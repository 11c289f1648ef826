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


class Feed:
    """What a step takes and gives, row by row: a token at a position of a slot, and the logits after it.

    Rows of one slot are tokens in a row of one text, rows of several slots are several texts.

    Attributes:
        token, position, slot: int32 (R,), the next step's input, of which the first ``count`` rows are in use.
        temperature, seed, top_p: float32, int32 and float32 (R,), of sampling; kernels know no ``top_p``.
        logits, next: float32 (R, V) and int32 (R,), of the last step: what it gave, and the token picked from that.
    """

    def __init__(self, network: Network, rows: int) -> None:
        device = network.embedding.device
        self.token, self.position, self.slot, self.seed, self.next = torch.zeros(
            5, rows, dtype=torch.int32, device=device
        )
        self.temperature, self.top_p = torch.zeros(rows, device=device), torch.ones(rows, device=device)
        self.logits = torch.zeros(rows, len(network.head), device=device)
        self.used = torch.full((1,), rows, dtype=torch.int32, device=device)  # for kernels
        self._count = rows

    @property
    def count(self) -> int:
        return self._count

    @count.setter
    def count(self, rows: int) -> None:
        self._count = rows
        self.used.fill_(rows)

    def drop(self, row: int) -> None:
        """The last row in use takes this one's place."""
        self.count -= 1
        for held in (self.token, self.position, self.slot, self.seed, self.temperature, self.top_p):
            held[row] = held[self.count].clone()


@dataclass
class State:
    """Room for the texts of ``slots`` sequences of up to ``context`` positions each.

    Attributes:
        keys, values: (L, S, C, kv_heads, head_dim).
        ids: int32 (L, F), of which each layer's first k are its neurons.
        feed: a row a slot.
        history: int32 (S, C + 1), tokens by position.
    """

    network: Network
    context: int
    slots: int = 1
    keys: Tensor = field(init=False)
    values: Tensor = field(init=False)

    def __post_init__(self) -> None:
        net, weights = self.network, self.network.embedding
        cache = (len(net.layers), self.slots, self.context, net.kv_heads, net.head_dim)
        self.keys, self.values = weights.new_zeros(cache), weights.new_zeros(cache)
        self.ids, self.feed = self._whole(len(net.layers), net.width), Feed(net, self.slots)
        self.feed.slot.copy_(torch.arange(self.slots))
        self.history = self._whole(self.slots, self.context + 1)
        self.stream, self.added = self._floats(2, net.hidden), self._floats(2, net.hidden)
        count, side = net.heads * net.head_dim, net.kv_heads * net.head_dim
        self.qkv, self.attended = self._floats(count + 2 * side), self._floats(count)
        self.active = self._floats(net.width)
        self.chunk, self.chunks, self.low = CHUNK, -(-self.context // CHUNK), 0
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

    def begin(self, tokens: Tensor, caches: list[tuple[Tensor, Tensor]], known: int, slot: int = 0) -> None:
        """Take over a prefill: ``tokens`` (P,), each layer's keys and values (kv_heads, T, head_dim), the last ``T`` of
        ``known`` positions; the step to come feeds the last token.
        """
        self.history[slot, : len(tokens)] = tokens.to(self.history)
        self.feed.token[slot], self.feed.position[slot], self.feed.slot[slot] = tokens[-1], len(tokens) - 1, slot
        for number, (k, v) in enumerate(caches):
            some = slice(known - k.shape[1], known)
            self.keys[number, slot, some], self.values[number, slot, some] = k.transpose(0, 1), v.transpose(0, 1)
