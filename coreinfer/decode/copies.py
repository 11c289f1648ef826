"""Memory for a CPU's gathered weights that goes from a set that leaves to the one that comes: to get a new page costs
several times what it costs to fill it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.decode import compiled
from coreinfer.decode.network import Layer, Weight, columns_of
from coreinfer.quantised.packed import Packed
from coreinfer.sharing import TURN

Memory = NDArray[np.uint8]
LINE = 64  # bytes: where each weight begins
SLACK = 8  # a new memory is larger by one part of so many: the next set may want more
LOOSE = 2  # times what is wanted that a memory may have


def bits(weight: Tensor) -> NDArray[np.float32 | np.uint16]:
    """The tensor's memory: float32, or bfloat16 as uint16."""
    held = weight if weight.dtype is torch.float32 else weight.to(torch.bfloat16).view(torch.uint16)
    return held.numpy()


class Copies:
    """Of the neurons of one set, so many of each of ``layers``; where it is all of a layer's, they are not copied.

    ``spare``: memory of a set that left, or nothing. It is taken out where anything is copied: used if it fits, else
    let go before there is a new one.
    """

    def __init__(self, layers: Sequence[Layer], counts: Sequence[int], spare: list[Memory]) -> None:
        size = sum(_size(layer, count) for layer, count in zip(layers, counts, strict=True))
        if size and spare and not size <= spare[0].nbytes <= LOOSE * size:
            spare.clear()
        self.memory = spare.pop() if size and spare else _new(size + size // SLACK)
        self._at = 0

    def rows(self, weight: Weight, ids: Tensor) -> Weight:
        """As ``network.rows_of``, in here."""
        if isinstance(weight, Packed):
            return Packed(self._rows(weight.data, ids), self._rows(weight.scales, ids))
        return self._rows(weight, ids)

    def columns(self, weight: Tensor, ids: Tensor) -> Tensor:
        """As ``network.columns_of``, in here."""
        if weight.dtype not in (torch.float32, torch.bfloat16) or not weight.is_contiguous():
            return columns_of(weight, ids)
        out = self._empty((len(weight), len(ids)), weight.dtype)
        with TURN:
            compiled.columns(bits(weight), ids.numpy(), bits(out))
        return out

    def _rows(self, weight: Tensor, ids: Tensor) -> Tensor:
        out = self._empty((len(ids), *weight.shape[1:]), weight.dtype)
        return torch.index_select(weight, 0, ids, out=out)

    def _empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        begin, size = self._at, int(np.prod(shape)) * dtype.itemsize
        self._at += _lined(size)
        return torch.from_numpy(self.memory[begin : begin + size]).view(dtype).view(shape)


def _new(size: int) -> Memory:
    """NumPy asks for huge pages, torch does not; but torch's memory begins with a line."""
    raw = np.empty(size + LINE, np.uint8)
    begin = -raw.ctypes.data % LINE
    return raw[begin : begin + size]


def _lined(size: int) -> int:
    return -(-size // LINE) * LINE


def _size(layer: Layer, count: int) -> int:
    """Bytes of so many neurons of a layer."""
    tensors = [x for row in layer.rows for x in ((row.data, row.scales) if isinstance(row, Packed) else (row,))]
    return sum(_lined(count * (x.nbytes // len(x))) for x in tensors if count < len(x))
