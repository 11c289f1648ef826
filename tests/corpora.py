"""Small datasets of every kind, and how the tests read them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coreinfer.errors import CoreInferError
from pipeline.passages import Passage
from pipeline.sources import Counts, SourceSettings, read_passages

Tokens = Callable[[list[str]], list[int]]
A, B = "The first text of this corpus.", "A second text, with “quotes”."


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def read(dataset: Path | str, tokens: Tokens = words, **settings: Any) -> tuple[list[Passage], Counts]:
    counts = Counts()
    return list(read_passages(SourceSettings(str(dataset), **settings), tokens, counts)), counts


def refusal(dataset: Path | str, **settings: Any) -> str:
    with pytest.raises(CoreInferError) as caught:
        read(dataset, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def jsonl(path: Path, *rows: object) -> Path:
    return write(path, "".join(json.dumps(row) + "\n" for row in rows))


def parquet(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def make(kind: str, path: Path) -> Path:
    if kind == "parquet":
        return parquet(path, id=[1, 2], text=[A, B])
    lines = {
        "txt": f"{A}\n\n \n{B}\n",
        "csv": f'id,text\n1,{A}\n2,"{B}"\n',
        "tsv": f"id\ttext\n1\t{A}\n2\t{B}\n",
    }
    return write(path, lines.get(kind, f"{json.dumps({'text': A})}\n\n{json.dumps({'text': B})}\n"))
