"""Passages -> unit float32 embeddings in a file, read back as a memory map: the corpus is never held in memory."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import Embedder
from coreinfer.progress import Tick

PIECE = 512  # share rows, or are sorted by length, together: progress shows, and little is padded


def embed_texts(texts: list[str], embedder: Embedder, tick: Tick = lambda n: None) -> NDArray[np.float32]:
    """Unit vectors (n, d), little-endian. Those of consecutive passages that begin at a multiple of ``PIECE`` are, bit
    for bit, what the whole corpus gives.
    """
    out = np.empty((len(texts), embedder.dimension), "<f4")
    for at in range(0, len(texts), PIECE):
        piece = texts[at : at + PIECE]
        out[at : at + PIECE] = embedder.embed(piece)
        tick(len(piece))
    return out


def write_vectors(out: Path, count: int, dimension: int, pieces: Iterable[NDArray[np.float32]]) -> None:
    """A .npy file (``count``, ``dimension``), written front to back: no page of it stays in memory."""
    head = {"descr": "<f4", "fortran_order": False, "shape": (count, dimension)}
    with out.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for piece in pieces:
            file.write(piece.tobytes())


def open_vectors(path: Path) -> NDArray[np.float32]:
    """The embeddings as a memory map (n, d); what was read of it leaves memory with the array."""
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
