"""A prefill's cache as llama.cpp writes the state of a sequence, so that it continues on keys and values made dense.

The format is that of ``llama_state_seq_get_data`` (llama.cpp's ``src/llama-kv-cache.cpp``, ``state_write``) without its
first eight bytes: for each of its caches the number of streams and of cells, each cell's position and sequences, then
all layers' keys, a row a cell, and then all layers' values, a row a dimension (with flash attention, a row a cell too).
Models with sliding windows have two caches: of the layers without, then of those with.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coreinfer.errors import CoreInferError
from coreinfer.gguf.tensors import interleaved

EMPTY = 8  # bytes of a cache without cells
TYPES = {torch.float32: 0, torch.float16: 1}  # ggml's numbers of types
Cache = tuple[Tensor, Tensor]  # a layer's keys and values (kv_heads, T, D): the last T of the known positions


@dataclass(frozen=True)
class Shape:
    """How a llama.cpp model keeps its cache.

    Attributes:
        windows: each layer's sliding window, or None; all None where the architecture knows none.
        head_dim: D. ``neighbours``: whether keys lie as rope of neighbours leaves them (``gguf.layouts``).
        dtype: of keys and values.
    """

    windows: tuple[int | None, ...]
    head_dim: int
    neighbours: bool
    dtype: torch.dtype

    @property
    def caches(self) -> int:
        """How many llama.cpp keeps."""
        return 2 if any(self.windows) else 1


def sequence_state(caches: Sequence[Cache], known: int, shape: Shape) -> bytes:
    """The state of sequence 0 after ``known`` positions, given each layer's cache.

    Raises:
        CoreInferError: numbers that float16 does not hold.
    """
    windows = [window for window in shape.windows if window is not None]
    plain = [cache for cache, window in zip(caches, shape.windows, strict=True) if window is None]
    if shape.caches == 1:
        return b"".join(_one(plain, known, known, shape))
    sliding = [cache for cache, window in zip(caches, shape.windows, strict=True) if window is not None]
    reach = min(known, max(windows) - 1, *(keys.shape[1] for keys, _ in sliding))  # what the next token sees
    return b"".join([*_one(plain, known, known, shape), *_one(sliding, known, reach, shape)])


def _one(caches: Sequence[Cache], known: int, cells: int, shape: Shape) -> Iterator[bytes]:
    """One of llama.cpp's caches, with the last ``cells`` positions."""
    yield struct.pack("<II", 1, cells)
    yield b"".join(struct.pack("<iIi", position, 1, 0) for position in range(known - cells, known))
    yield struct.pack("<II", 1, len(caches))
    for keys, _ in caches:
        rows = _rows(keys, cells, shape.dtype)
        yield struct.pack("<iQ", TYPES[shape.dtype], rows.shape[1] * shape.dtype.itemsize)
        yield _bytes(interleaved(rows.T, shape.head_dim).T if shape.neighbours else rows)
    for _, values in caches:
        rows = _rows(values, cells, shape.dtype)
        yield struct.pack("<iII", TYPES[shape.dtype], shape.dtype.itemsize, rows.shape[1])
        yield _bytes(rows.T)


def _rows(heads: Tensor, cells: int, dtype: torch.dtype) -> Tensor:
    """(kv_heads, T, D) -> the last cells (cells, kv_heads * D)."""
    rows = heads.detach()[:, heads.shape[1] - cells :].transpose(0, 1).reshape(cells, -1).to("cpu", dtype)
    if not rows.isfinite().all():
        raise CoreInferError(
            "the prompt's keys or values are too large for float16, in which llama.cpp keeps them: give --dtype "
            "float32 or choose another --runtime"
        )
    return rows


def _bytes(rows: Tensor) -> bytes:
    return rows.contiguous().numpy().tobytes()
