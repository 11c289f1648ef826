"""Rows of an array that may be a memory map, read from its file: pages of a map stay in memory as long as it does."""

import mmap
from io import FileIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


def rows_of(vectors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """A copy (r, d) of some ``rows`` of ``vectors`` (n, d).

    Raises:
        OSError: a map's file cannot be read.
    """
    if not (isinstance(vectors, np.memmap) and isinstance(vectors.base, mmap.mmap) and vectors.flags.c_contiguous):
        return np.ascontiguousarray(vectors[rows], np.float32)
    if not len(rows):
        return np.empty((0, *vectors.shape[1:]), np.float32)
    out = np.empty((len(rows), *vectors.shape[1:]), vectors.dtype)
    edges = np.flatnonzero(np.diff(rows, prepend=rows[0] - 2, append=rows[-1] - 1) != 1)  # of runs of rows
    with Path(str(vectors.filename)).open("rb", buffering=0) as file:
        for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            file.seek(vectors.offset + int(rows[start]) * vectors.strides[0])
            _read(file, out[start:end])
    return np.asarray(out, np.float32)


def _read(file: FileIO, out: NDArray[np.float32]) -> None:
    data = out.reshape(-1).view(np.uint8).data
    while data:
        if not (taken := file.readinto(data)):
            raise OSError("embeddings end before they should")
        data = data[taken:]
