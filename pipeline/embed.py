"""Passages -> unit float32 embeddings in a file, read back as a memory map: the corpus is never held in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.embedder import Embedder
from pipeline.sources import Passage

WINDOW = 4096  # passages that are sorted by length together
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("source", pa.string())])


def write_passages(passages: Iterator[Passage], path: Path, tick: Callable[[int], Any] = lambda n: None) -> int:
    """Stream passages into a Parquet file, one row group a window; returns how many."""
    total, rows = 0, list[dict[str, Any]]()
    with pq.ParquetWriter(path, SCHEMA) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
            rows.clear()

        for passage in passages:
            rows.append({"id": passage.id, "text": passage.text, "source": passage.source})
            total += 1
            if len(rows) == WINDOW:
                flush()
                tick(WINDOW)
        if rows:
            tick(len(rows))
            flush()
    return total


def read_windows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(index of the first passage, texts) of each window, in order."""
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            texts = file.read_row_group(group, columns=["text"]).column("text").to_pylist()
            yield start, texts
            start += len(texts)


def embed_passages(
    passages: Path, count: int, embedder: Embedder, out: Path, tick: Callable[[int], Any] = lambda n: None
) -> None:
    """Embed every passage into ``out``, a .npy file (n, d), written front to back: no page of it stays in memory."""
    head = {"descr": "<f4", "fortran_order": False, "shape": (count, embedder.dimension)}
    with out.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, head)
        for _, texts in read_windows(passages):
            for at in range(0, len(texts), 512):  # sorted by length in 512s: progress shows, padding stays small
                piece = texts[at : at + 512]
                file.write(embedder.embed(piece).astype("<f4").tobytes())
                tick(len(piece))


def open_vectors(path: Path) -> NDArray[np.float32]:
    """The embeddings as a memory map (n, d); what was read of it leaves memory with the array."""
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]
