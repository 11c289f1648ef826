"""A step of several rows as a row of kernel launches, as ``steps`` has them for one; captured likewise."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from coreinfer.decode.attention import attending, heads_of, rope_of
from coreinfer.decode.network import Layer, Network, Norm, plain
from coreinfer.decode.state import PICKERS, Feed, State
from coreinfer.decode.steps import Launches, vectors
from coreinfer.decode.words import power
from coreinfer.kernels.attend import remember
from coreinfer.kernels.ends import embed, pick
from coreinfer.kernels.rows import activate_rows, deactivate_rows, multiply, ready

LEAST = 16  # vectors that a tensor core takes at a time
WIDE, DEEP = 64, 128  # rows of a matrix that a program reads, and columns at a time, of 16 bits each
SPARE = 4096  # bytes of shared memory for sums across a program
CHUNK = 256  # positions of the cache that one program attends to: twice a single row's, since there are more programs
BLOCK, SPLITS = 128, 16  # down columns that a program sums, and programs that share the neurons of a block

Launch = Callable[[], Any]


def shared_memory(weights: Tensor) -> int:
    """Bytes that a program may have of it; of a device that is none, enough."""
    if not weights.is_cuda:
        return 1 << 18
    found: Any = triton.runtime.driver.active.utils.get_device_properties(weights.device.index or 0)
    return int(found["max_shared_mem"])


def pieces(shared: int, size: int, rows: int) -> tuple[int, int]:
    """Columns that a program reads at a time, and how many such pieces lie in ``shared`` bytes of memory: the most of
    those that fit, of weights of ``size`` bytes, for so many rows. ``activate_rows`` needs most: two tiles of weights
    and one of vectors a piece.
    """
    for stages, deep in ((4, 2 * DEEP // size), (3, 2 * DEEP // size), (3, DEEP // size), (2, DEEP // size)):
        if stages * deep * size * (2 * WIDE + rows) <= shared - SPARE:
            return deep, stages
    return 32, 2


class Vectors:
    """What lies between the weights of so many rows, in ``many``, which tensor cores take."""

    def __init__(self, state: State, rows: int, splits: int) -> None:
        net, narrow = state.network, state.network.embedding.dtype
        self.device, self.halves = net.embedding.device, 1 if narrow == torch.float32 else 2
        self.many = max(LEAST, power(self.halves * rows))
        count, side, heads = net.heads * net.head_dim, net.kv_heads * net.head_dim, net.heads
        self.stream, self.added = self._room(net.hidden), self._room(net.hidden)
        self.x, self.attended = self._room(net.hidden, dtype=narrow), self._room(count, dtype=narrow)
        self.active, self.qkv = self._room(net.width, dtype=narrow), self._room(count + 2 * side)
        self.low = self.low_of(count)
        self.chunk, self.chunks = CHUNK, -(-state.context // CHUNK)
        self.logits, self.parts = self._room(len(net.head)), self._room(heads, self.chunks, net.head_dim)
        self.tops, self.sums = self._room(heads, self.chunks), self._room(heads, self.chunks)
        self.down_parts = self._room(splits, net.hidden)
        self.best, self.where = self._room(PICKERS), self._room(PICKERS, dtype=torch.int32)
        self.counts = self._room(3, max(heads, net.hidden), dtype=torch.int32).view(3, -1)

    def low_of(self, width: int) -> int:
        """Elements after which what was rounded off a vector follows; 0: nothing was."""
        return self.many // 2 * width if self.halves > 1 else 0

    def _room(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.zeros(self.many, *shape, dtype=dtype, device=self.device)


class RowsStep(Launches):
    """One token of each row in use of ``feed``, the state's own if none is given.

    ``ids``: as the state's, which they are if none are given. ``run`` makes the tokens the next input; ``look``, of a
    step that was made for it, leaves them in ``feed.next``.
    """

    def __init__(
        self, network: Network, state: State, kept: Sequence[int], feed: Feed | None = None, ids: Tensor | None = None,
        looking: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(network.embedding)
        self.network, self.state, self.kept, self.feed = network, state, list(kept), feed or state.feed
        self.looking = looking
        self.rows, self.ids = len(self.feed.token), state.ids if ids is None else ids
        self.v = Vectors(state, self.rows, SPLITS)
        self.deep, stages = pieces(shared_memory(network.embedding), network.embedding.element_size(), self.v.many)
        self.tiled = {"num_warps": 4, "num_stages": stages, **self.pdl}
        self.launches = [self._embed(), *self._layers(), *self._end()]

    def look(self) -> None:
        assert self.looking
        self.run()

    def _embed(self) -> Launch:
        net, f = self.network, self.feed
        places = net.embedding if net.positions is None else net.positions
        return lambda: embed[(self.rows,)](
            self.v.stream, self.v.added, net.embedding, places, f.token, f.position, f.used, net.embedding_scale,
            H=net.hidden, HB=power(net.hidden), PLACES=net.positions is not None,
        )  # fmt: skip

    def _layers(self) -> list[Launch]:
        out, after, v = list[Launch](), None, self.v
        for number, layer in enumerate(self.network.layers):
            out += [
                self._ready(layer.before_attention, after),
                self._multiply(v.qkv, plain(layer.qkv), layer.qkv_bias, v.x),
                *self._attention(number, layer),
                self._multiply(v.added, plain(layer.out), layer.out_bias, v.attended),
                self._ready(layer.before_mlp, layer.after_attention), *self._mlp(number, layer),
            ]  # fmt: skip
            after = layer.after_mlp
        return out

    def _attention(self, number: int, layer: Layer) -> list[Launch]:
        """Rows of one text look at one another's keys, which must be there before; one of each text has its own."""
        apart = not self.looking
        attend = attending(self.state, self.v, self.feed, self.rows, number, layer, apart, self.pdl)
        return [attend] if apart else [self._remember(number, layer), attend]

    def _ready(self, norm: Norm, after: Norm | None) -> Launch:
        v, hidden = self.v, self.network.hidden
        return lambda: ready[(self.rows,)](
            v.x, v.stream, v.added, v.stream, *vectors(norm, after, v.stream), norm.eps,
            H=hidden, HB=power(hidden), LOW=v.low_of(hidden), CENTER=norm.center, AFTER=after is not None, **self.pdl,
        )  # fmt: skip

    def _multiply(
        self, out: Tensor, weight: Tensor, bias: Tensor | None, x: Tensor, cap: float | None = None
    ) -> Launch:
        n, hidden = weight.shape
        return lambda: multiply[(triton.cdiv(n, WIDE),)](
            out, weight, out if bias is None else bias, x, n, cap or 0.0,
            H=hidden, BN=WIDE, BK=self._deep(hidden), R=self.v.many, HALVES=self.v.halves, BIAS=bias is not None,
            CAP=cap is not None, **self.tiled,
        )  # fmt: skip

    def _deep(self, n: int) -> int:
        """Columns at a time."""
        return max(32, min(self.deep, power(n)))

    def _remember(self, number: int, layer: Layer) -> Launch:
        net, s, f, v = self.network, self.state, self.feed, self.v
        norm = v.stream if layer.k_norm is None else layer.k_norm.weight
        return lambda: remember[(net.kv_heads, self.rows)](
            v.qkv, s.keys[number], s.values[number], rope_of(net, layer), norm, f.position, f.slot, f.used, s.context,
            layer.k_norm.eps if layer.k_norm else 1.0, **heads_of(net, layer), **self.pdl,
        )  # fmt: skip

    def _mlp(self, number: int, layer: Layer) -> list[Launch]:
        net, k, ids, neurons, v = self.network, self.kept[number], self.ids[number], layer.neurons, self.v
        assert neurons is not None, "the network was read without its bundle"
        width, parts, hidden = neurons.shape
        in_bias, down_bias, block = layer.in_bias, layer.down_bias, max(16, min(BLOCK, power(hidden)))
        return [
            lambda: activate_rows[(triton.cdiv(k, WIDE),)](
                v.active, neurons, ids, v.stream if in_bias is None else in_bias, v.x, k, width,
                H=hidden, P=parts, BN=WIDE, BK=self._deep(hidden), R=v.many, HALVES=v.halves, LOW=v.low_of(width),
                ACT=net.act, BIAS=in_bias is not None, **self.tiled,
            ),
            lambda: deactivate_rows[(triton.cdiv(hidden, block), SPLITS)](
                v.added, neurons, ids, v.active, v.stream if down_bias is None else down_bias, v.down_parts,
                v.counts[1], k, width,
                H=hidden, P=parts, BF=self._deep(k) // 2, BH=block, R=v.many, HALVES=v.halves, S=SPLITS,
                BIAS=down_bias is not None, **self.tiled,
            ),
        ]  # fmt: skip

    def _end(self) -> list[Launch]:
        net, s, f, v = self.network, self.state, self.feed, self.v
        return [
            self._ready(net.final, net.layers[-1].after_mlp),
            self._multiply(v.logits, plain(net.head), net.head_bias, v.x, net.softcap),
            lambda: pick[(PICKERS, self.rows)](
                v.logits, len(net.head), f.temperature, f.seed, f.token, f.position, f.slot, f.next, f.used,
                s.history, s.context, v.best, v.where, v.counts[2], BLOCK=1024, PROGRAMS=PICKERS,
                ADVANCE=not self.looking, num_warps=4, **self.pdl,
            ),
        ]  # fmt: skip
