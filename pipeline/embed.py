"""Passages -> unit float32 embeddings in a file, read back as a memory map: the corpus is never held in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import Embedder
from pipeline.passages import read_windows

PIECE = 512  # sorted by length together: progress shows, padding stays small


def embed_passages(
    passages: Path, count: int, embedder: Embedder, out: Path, tick: Callable[[int], Any] = lambda n: None
) -> None:
    """Embed every passage into ``out``, a .npy file (n, d), written front to back: no page of it stays in memory."""
    head = {"descr": "<f4", "fortran_order": False, "shape": (count, embedder.dimension)}
    with out.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for _, texts in read_windows(passages):
            for at in range(0, len(texts), PIECE):
                piece = texts[at : at + PIECE]
                file.write(embedder.embed(piece).astype("<f4").tobytes())
                tick(len(piece))


def open_vectors(path: Path) -> NDArray[np.float32]:
    """The embeddings as a memory map (n, d); what was read of it leaves memory with the array."""
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
