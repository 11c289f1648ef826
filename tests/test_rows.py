"""Rows in files: prompts of both forms beside each other, and what a format cannot hold."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from conftest import run_cli

from coreinfer.errors import CoreInferError
from coreinfer.row_files import write_rows

TURNS = [{"role": "user", "content": "What is a cell?"}, {"role": "assistant", "content": "Klein, ja."}]
MIXES: list[list[Any]] = [["A text.", TURNS], [TURNS, "A text."], [TURNS, TURNS], ["A text.", "Another."]]


def rows_of(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def as_stored(prompt: Any, path: Path) -> Any:
    """Parquet's column is text: turns are JSON there."""
    return json.dumps(prompt, ensure_ascii=False) if path.suffix == ".parquet" and prompt is TURNS else prompt


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
@pytest.mark.parametrize("prompts", MIXES)
def test_prompts_of_both_forms(tmp_path: Path, name: str, prompts: list[Any]) -> None:
    path, kept = tmp_path / name, [[3, 4], None]
    write_rows([{"prompt": p, "neurons_per_layer": k} for p, k in zip(prompts, kept, strict=True)], path)
    rows = rows_of(path)
    assert [row["prompt"] for row in rows] == [as_stored(p, path) for p in prompts]
    assert [row["neurons_per_layer"] for row in rows] == kept


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_predict_a_text_and_turns_into_a_file(artifact: Path, tmp_path: Path, name: str) -> None:
    given = tmp_path / "given.jsonl"
    given.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in ("A text.", TURNS)), "utf-8")
    result = run_cli("predict", "-a", artifact, "-f", given, "-p", "similarity", "-o", tmp_path / name)
    assert result.code == 0, result.err
    assert [row["prompt"] for row in rows_of(tmp_path / name)] == ["A text.", as_stored(TURNS, tmp_path / name)]


ODD = {"role": "user", "content": "hm", "x": "\ud83d"}  # half a character, where nobody looks


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("rows.parquet", {"prompt": "", "x": [1, "a"]}),
        ("rows.parquet", {"prompt": [ODD]}),
        ("rows.jsonl", {"prompt": [ODD]}),
    ],
)
def test_what_a_format_cannot_hold_is_one_line(tmp_path: Path, name: str, row: dict[str, Any]) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(CoreInferError, match=r"^.*rows.* cannot hold these rows .*: mend the prompts$"):
        write_rows([row], tmp_path / name)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {name: "precious"}
