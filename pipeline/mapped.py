"""Rows of an array that may be a memory map, without the map's pages staying in this process's memory."""

import mmap

import numpy as np
from numpy.typing import NDArray


def rows_of(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A copy (r, d) of some ``rows`` of ``vectors`` (n, d), which the kernel may read from the disk again."""
    out = np.ascontiguousarray(vectors[rows], np.float32)
    if isinstance(pages := getattr(vectors, "_mmap", None), mmap.mmap):
        pages.madvise(mmap.MADV_DONTNEED)
    return out
