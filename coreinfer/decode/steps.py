"""A step as a row of kernel launches on fixed buffers; on a GPU it is captured once and replayed.

Grids do not depend on which neurons are kept, only on how many of each layer: another prompt's set needs no capture.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from coreinfer.decode.attention import attending
from coreinfer.decode.network import Layer, Network, Norm, Weight
from coreinfer.decode.state import PICKERS, SPLITS, State
from coreinfer.decode.words import held, power
from coreinfer.kernels.ends import embed, pick
from coreinfer.kernels.neurons import activate, deactivate
from coreinfer.kernels.project import project


@dataclass(frozen=True)
class Tiles:
    """How work is cut. ``rows`` of a matrix, or half as many neurons, a program reads at a time, with ``warps``;
    ``programs`` on each multiprocessor; ``block`` columns of ``deep`` neurons in ``deactivate``, with ``down_warps``,
    and up to ``splits`` programs share a block. Of integers, which are shorter, twice as much. The defaults are the
    fastest of those tried on an H100.
    """

    rows: int = 4
    warps: int = 8
    programs: int = 2
    block: int = 64
    deep: int = 64
    down_warps: int = 2
    splits: int = 17


def even(pieces: int, most: int) -> int:
    """How many programs share the pieces with the least idleness: from three quarters of ``most`` to ``most``."""
    tried = range(max(1, most * 3 // 4), most + 1)
    return min(max(1, pieces), min(tried, key=lambda n: (triton.cdiv(pieces, n) * n, -n)))


@contextmanager
def undisturbed() -> Iterator[None]:
    """No garbage collection: what it would let go of the device, an older graph say, may not go during a capture."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


class Launches:
    """Kernel launches in a row: ``run`` does them one by one; after ``capture`` one replay does all of them."""

    def __init__(self, weights: Tensor) -> None:
        on_gpu = weights.is_cuda
        self.units = torch.cuda.get_device_properties(weights.device).multi_processor_count if on_gpu else 2
        early = on_gpu and torch.version.hip is None and torch.cuda.get_device_capability(weights.device) >= (9, 0)
        self.pdl: dict[str, Any] = {"PDL": True, "launch_pdl": True} if early else {"PDL": False}
        self.launches = list[Callable[[], Any]]()
        self.graph: torch.cuda.CUDAGraph | None = None

    def run(self) -> None:
        if self.graph is not None:
            self.graph.replay()
            return
        for launch in self.launches:
            launch()

    def capture(self) -> None:
        """Record the launches. They run twice before, on what the state holds, so that all kernels are compiled."""
        for _ in range(2):
            self.run()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with undisturbed(), torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may allocate
            self.run()
        self.graph = graph


class Step(Launches):
    """One token of one text, that of the feed's first row, however many are in use."""

    def __init__(self, network: Network, state: State, kept: Sequence[int], tiles: Tiles | None = None) -> None:
        super().__init__(network.embedding)
        self.network, self.state, self.kept, self.tiles = network, state, list(kept), tiles or Tiles()
        self.launches = [*self._begin(), *self._layers(), *self._end()]

    def _begin(self) -> list[Callable[[], Any]]:
        net, s = self.network, self.state
        places = net.embedding if net.positions is None else net.positions
        return [
            lambda: embed[(1,)](
                s.stream[0], s.added[1], net.embedding, places, s.feed.token, s.feed.position, s.feed.used,
                net.embedding_scale, H=net.hidden, HB=power(net.hidden), PLACES=net.positions is not None,
            )
        ]  # fmt: skip

    def _layers(self) -> list[Callable[[], Any]]:
        out, after = list[Callable[[], Any]](), None
        for number, layer in enumerate(self.network.layers):
            out += self._attention(number, layer, after)
            out += self._mlp(number, layer)
            after = layer.after_mlp
        return out

    def _attention(self, number: int, layer: Layer, after: Norm | None) -> list[Callable[[], Any]]:
        s = self.state
        turn = self._project(s.qkv, layer.qkv, layer.qkv_bias, s.stream[0], s.added[1], s.stream[1],
                             layer.before_attention, after)  # fmt: skip
        back = self._project(s.added[0], layer.out, layer.out_bias, s.attended)
        attend = attending(s, s, s.feed, 1, number, layer, True, self.pdl)
        return [turn, attend, back]

    def _project(
        self, out: Tensor, weight: Weight, bias: Tensor | None, before: Tensor, added: Tensor | None = None,
        now: Tensor | None = None, norm: Norm | None = None, after: Norm | None = None, cap: float | None = None,
    ) -> Callable[[], Any]:  # fmt: skip
        n, hidden = weight.shape
        data, scales, bits = held(weight)
        rows = self._rows(self.tiles.rows, hidden, bits)
        grid = (min(triton.cdiv(n, rows), self.units * self.tiles.programs),)
        center = norm is not None and norm.center
        return lambda: project[grid](
            out, data, scales, before if bias is None else bias, before, before if added is None else added,
            before if now is None else now, *vectors(norm, after, before), n, norm.eps if norm else 0.0, cap or 0.0,
            H=hidden, HB=power(hidden), BN=rows, BITS=bits, NORMED=norm is not None, CENTER=center,
            AFTER=after is not None, BIAS=bias is not None, CAP=cap is not None, num_warps=self._warps(hidden),
            **self.pdl,
        )  # fmt: skip

    def _rows(self, most: int, hidden: int, bits: int) -> int:
        """Of a matrix, or neurons, that a program reads at a time. Of integers twice as many; more would take so many
        registers that half the programs would wait.
        """
        return max(1, most * 4096 // max(4096, power(hidden))) * (2 if bits < 16 else 1)

    def _warps(self, hidden: int) -> int:
        return max(1, min(self.tiles.warps, power(hidden) // 128))

    def _mlp(self, number: int, layer: Layer) -> list[Callable[[], Any]]:
        s, t, hidden, k = self.state, self.tiles, self.network.hidden, self.kept[number]
        assert layer.neurons is not None, "the network was read without its bundle"
        width, parts, _ = layer.neurons.shape
        data, scales, bits = held(layer.neurons)
        rows = self._rows(t.rows // (parts - 1), hidden, bits)
        grid = (max(1, min(triton.cdiv(k, rows), self.units * t.programs)),)
        ids, norm = s.ids[number], layer.before_mlp
        in_bias, down_bias = layer.in_bias, layer.down_bias
        wider = 2 if bits < 16 else 1  # so that what is read of a neuron at a time is not too short
        block, deep, warps = min(wider * t.block, power(hidden)), wider * t.deep, wider * t.down_warps
        splits = even(triton.cdiv(k, deep), min(t.splits, SPLITS))
        lanes = min(deep, power(max(1, 32 * warps * 128 // (block * min(bits, 8 * data.element_size())))))
        return [
            lambda: activate[grid](
                s.active, data, scales, ids, s.stream[0] if in_bias is None else in_bias, s.stream[1], s.added[0],
                s.stream[0], *vectors(norm, layer.after_attention, s.stream[0]), k, width, norm.eps,
                H=hidden, HB=power(hidden), P=parts, BN=rows, BITS=bits, ACT=self.network.act, CENTER=norm.center,
                AFTER=layer.after_attention is not None, BIAS=in_bias is not None, num_warps=self._warps(hidden),
                **self.pdl,
            ),
            lambda: deactivate[(triton.cdiv(hidden, block), splits)](
                s.added[1], data, scales, ids, s.active, s.stream[0] if down_bias is None else down_bias, s.down_parts,
                s.counts[1], k,
                H=hidden, P=parts, BF=deep, BH=block, S=splits, SB=power(splits), LANES=lanes,
                BITS=bits, BIAS=down_bias is not None, num_warps=warps, **self.pdl,
            ),
        ]  # fmt: skip

    def _end(self) -> list[Callable[[], Any]]:
        net, s = self.network, self.state
        after = net.layers[-1].after_mlp
        head = self._project(
            s.feed.logits, net.head, net.head_bias, s.stream[0], s.added[1], s.stream[1], net.final, after, net.softcap
        )
        return [head, self._pick()]

    def _pick(self) -> Callable[[], Any]:
        net, s, f = self.network, self.state, self.state.feed
        return lambda: pick[(PICKERS,)](
            f.logits, len(net.head), f.temperature, f.seed, f.token, f.position, f.slot, f.next, f.used,
            s.history, s.context, s.best, s.where, s.counts[2], BLOCK=1024, PROGRAMS=PICKERS, ADVANCE=True,
            num_warps=4, **self.pdl,
        )  # fmt: skip


def vectors(norm: Norm | None, after: Norm | None, other: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A norm's weight and bias, and the weight of the norm of what was added; something of its kind where there is
    none, which the kernel does not read.
    """
    weight = other if norm is None else norm.weight
    bias = other if norm is None or norm.bias is None else norm.bias
    return weight, bias, other if after is None else after.weight
