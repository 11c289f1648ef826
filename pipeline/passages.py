"""Passages on disk, where the stages meet: written once from the source, read by the window by every other stage."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

WINDOW = 4096  # passages in memory at a time; a row group
BLOCK = 512  # consecutive passages that are recorded together; a window holds whole blocks, and so does a shard
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("source", pa.string())])


@dataclass(frozen=True)
class Passage:
    """A text of at most ``max_tokens``; ``source`` is the record it was cut from: name:line, or name:row for Parquet
    and the Hub. The passages of a record follow each other.
    """

    id: int
    text: str
    source: str


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


def read_windows(path: Path, column: str = "text") -> Iterator[tuple[int, list[str]]]:
    """(index of the first passage, texts or sources) of each window, in order."""
    for window, read in _windows(path, column):
        yield window.start, read().to_pylist()


def texts_at(path: Path, rows: NDArray[np.int64]) -> list[str]:
    """The texts of the passages at these indices, in the file's order; only the windows that hold them are read."""
    wanted, out = set(rows.tolist()), list[str]()
    for window, read in _windows(path, "text"):
        if places := [i for i, row in enumerate(window) if row in wanted]:
            out += read().take(places).to_pylist()
    return out


def read_rows(path: Path, rows: range) -> list[str]:
    """The texts of consecutive passages; only the windows that hold them are read."""
    out = list[str]()
    for window, read in _windows(path, "text"):
        begin, end = max(window.start, rows.start), min(window.stop, rows.stop)
        if begin < end:
            out += read().slice(begin - window.start, end - begin).to_pylist()
    return out


def _windows(path: Path, column: str) -> Iterator[tuple[range, Callable[[], pa.ChunkedArray]]]:
    """The indices of each window's passages, in order, and what reads a column of them."""
    with pq.ParquetFile(path) as file:

        def read(group: int) -> pa.ChunkedArray:
            return file.read_row_group(group, columns=[column]).column(column)

        start = 0
        for group in range(file.num_row_groups):
            window = range(start, start + file.metadata.row_group(group).num_rows)
            yield window, partial(read, group)
            start = window.stop


def spread(count: int, most: int) -> NDArray[np.int64]:
    """The indices of ``most`` of ``count`` passages, or of all: the middle of each of as many equal parts."""
    most = min(most, count)
    return (2 * np.arange(most) + 1) * count // (2 * most)


def digest_of(path: Path) -> str:
    """sha256 of the passages' texts, each behind its length in bytes."""
    digest = hashlib.sha256()
    for _, texts in read_windows(path):
        for text in texts:
            raw = text.encode()
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
    return digest.hexdigest()
