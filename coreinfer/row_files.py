"""Predictions in files, a row each: .jsonl or .parquet."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreinfer.errors import CoreInferError, in_words
from coreinfer.places import check_file, moved_in, writing

if TYPE_CHECKING:
    from coreinfer.prompts import Prompt

REMEDY = "choose another --output"


def check_rows(path: Path) -> None:
    """Refuse a place for rows before any work is done."""
    if path.suffix not in (".jsonl", ".parquet"):
        raise CoreInferError(f"--output {path} has the suffix {path.suffix!r}: give a .jsonl or .parquet file")
    check_file(path, REMEDY)


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Rows into .jsonl or .parquet, through a temporary sibling.

    A Parquet column has one type, so the turns of a conversation are JSON text there, whatever the other rows are.

    Raises:
        CoreInferError: a place that cannot be written, or rows that the format cannot hold.
    """
    import pyarrow as pa

    check_rows(path)
    try:
        with writing(path, REMEDY), moved_in(path) as part:
            (_write_lines if path.suffix == ".jsonl" else _write_table)(rows, part)
    except (pa.ArrowException, UnicodeError) as error:
        raise CoreInferError(f"{path} cannot hold these rows ({in_words(error)}): mend the prompts") from error


def _write_lines(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _write_table(rows: list[dict[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = [row | {"prompt": _one_text(row["prompt"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(flat), path, compression="zstd")


def _one_text(prompt: "Prompt") -> str:
    """A prompt as a text: turns as JSON."""
    return prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False)
