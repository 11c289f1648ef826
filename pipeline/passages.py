"""Passages on disk, where the stages meet: written once from the source, read by the window by every other stage."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    start = 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            values = file.read_row_group(group, columns=[column]).column(column).to_pylist()
            yield start, values
            start += len(values)


def texts_at(path: Path, rows: NDArray[np.int64]) -> list[str]:
    """The texts of the passages at these indices, in the file's order."""
    wanted = set(rows.tolist())
    return [text for start, window in read_windows(path) for i, text in enumerate(window, start) if i in wanted]


def read_rows(path: Path, rows: range) -> list[str]:
    """The texts of consecutive passages; only the windows that hold them are read."""
    out, start = list[str](), 0
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if start < rows.stop and start + count > rows.start:
                window = file.read_row_group(group, columns=["text"]).column("text")
                out += window.slice(max(0, rows.start - start), rows.stop - max(start, rows.start)).to_pylist()
            start += count
    return out


def digest_of(path: Path) -> str:
    """sha256 of the passages' texts, each behind its length in bytes."""
    digest = hashlib.sha256()
    for _, texts in read_windows(path):
        for text in texts:
            raw = text.encode()
            digest.update(len(raw).to_bytes(8, "little"))
            digest.update(raw)
    return digest.hexdigest()
