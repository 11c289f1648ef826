"""Which column holds the texts, what is dropped and counted, and that passages stream."""

from pathlib import Path
from typing import Any

import pytest
from corpora import A, B, jsonl, parquet, read, refusal, words, write

from coreinfer.errors import CoreInferError
from pipeline.sources import Counts, SourceSettings, read_passages


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"title": "x" * 30, "text": A}, A),
        ({"id": 7, "summary": A}, A),
        ({"title": "x" * 30, "content": A}, A),
        ({"id": "0012", "sentence": A}, A),
        ({"prompt": A, "title": "x" * 30}, A),
        ({"prompt": B, "text": A, "messages": [{"role": "user", "content": B}]}, A),
    ],
)
def test_the_text_column_is_found(row: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert [p.text for p in read(jsonl(tmp_path / "a.jsonl", row))[0]] == [expected]
    columns: dict[str, object] = {name: [value] for name, value in row.items()}
    if "id" not in row or row["id"] == 7:  # Parquet's types decide, not what its strings look like
        assert [p.text for p in read(parquet(tmp_path / "a.parquet", **columns))[0]] == [expected]


def test_a_guessed_text_column_is_said(tmp_path: Path) -> None:
    said = "1 record read, 1 passage, 0 texts split, dropped: none"
    for row, column, ending in (
        ({"body": A}, None, "; text column: body"), ({"text": A}, None, ""), ({"body": A}, "body", ""),
    ):  # fmt: skip
        assert read(jsonl(tmp_path / "a.jsonl", row), text_column=column)[1].sentence() == said + ending
    for name, column in (("a", "prompt"), ("b", "body"), ("c", "prompt"), ("d", "text")):
        jsonl(tmp_path / f"{name}.jsonl", {column: A})
    assert read(tmp_path)[1].sentence().endswith("none; text column: prompt, body")
    assert read(parquet(tmp_path / "a.parquet", story=[A], n=[1]))[1].guessed == ["story"]


def test_a_csv_of_prompts_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", f"prompt,topic\n{A},letters and more\n")
    assert [p.text for p in read(path)[0]] == [A]
    assert [p.text for p in read(path, text_column="topic", min_chars=1)[0]] == ["letters and more"]


def test_nulls_do_not_hide_the_text_column(tmp_path: Path) -> None:
    rows = [{"text": None, "title": "a title that is long enough"}] * 100 + [{"text": A, "title": None}]
    passages, counts = read(jsonl(tmp_path / "a.jsonl", *rows))
    assert [p.text for p in passages] == [A]
    assert counts.dropped == {"null": 100}


@pytest.mark.parametrize("row", [{"title": A, "abstract": B}, {"content": A, "body": B}])
def test_an_ambiguous_text_column_is_refused_with_the_columns(row: dict[str, object], tmp_path: Path) -> None:
    for path in (
        jsonl(tmp_path / "a.jsonl", row),
        parquet(tmp_path / "a.parquet", **{name: [value] for name, value in row.items()}),
    ):
        message = refusal(path)
        assert "--text-column" in message
        assert all(repr(name) in message for name in row)


@pytest.mark.parametrize(
    ("value", "kind"), [(0, "integers"), (True, "booleans"), (0.5, "numbers"), ([A], "lists"), ({"a": A}, "objects")]
)
def test_a_column_of_something_else_is_named_with_what_it_holds(value: object, kind: str, tmp_path: Path) -> None:
    message = refusal(jsonl(tmp_path / "a.jsonl", {"text": None}, {"text": value}))
    assert message == f"'a.jsonl' has no column of texts ('text' holds {kind}): write them as strings"


def test_a_parquet_without_strings_is_refused(tmp_path: Path) -> None:
    assert "no column of texts among 'n', 'text'" in refusal(parquet(tmp_path / "a.parquet", n=[1], text=[2.5]))


def test_a_named_column_is_used_or_refused(tmp_path: Path) -> None:
    for path in (
        jsonl(tmp_path / "a.jsonl", {"text": A, "other": B}),
        parquet(tmp_path / "a.parquet", text=[A], other=[B]),
    ):
        assert [p.text for p in read(path, text_column="other")[0]] == [B]
        assert "'missing' among 'text', 'other'" in refusal(path, text_column="missing")


def test_every_drop_is_counted_by_its_reason(tmp_path: Path) -> None:
    rows = [{"text": value} for value in (A, None, "", " \n", "short", 5, "lone \ud83d surrogate, long enough")]
    path = jsonl(tmp_path / "a.jsonl", *rows, {"other": 1})
    path.write_bytes(path.read_bytes() + b'{"text": "caf\xe9 au lait, s\'il vous plait"}\n')
    passages, counts = read(path)
    assert len(passages) == 1
    assert counts.dropped == {"null": 2, "empty": 2, "too short": 1, "not text": 1, "undecodable": 2}
    assert counts.records == 1 + sum(counts.dropped.values())
    assert counts.sentence() == (
        "9 records read, 1 passage, 0 texts split, dropped: 2 empty, 1 not text, 2 null, 1 too short, 2 undecodable; "
        "undecodable: 2 in a.jsonl (the first at 7)"
    )


def test_a_dataset_without_passages_is_refused(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.txt", "tiny\n"))
    assert "no usable text (1 record read, 0 passages, 0 texts split, dropped: 1 too short)" in message
    assert "lower --min-chars from 20" in message


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_empty_dataset_is_called_empty(content: str, name: str, tmp_path: Path) -> None:
    assert refusal(path := write(tmp_path / name, content)) == f"{str(path)!r} is empty: give one that holds texts"


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -3}, {"max_tokens": 0}, {"dataset": " "}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(CoreInferError, match="give"):
        SourceSettings(**({"dataset": "a.txt"} | wrong))


def test_the_limit_counts_passages_and_stops_the_reading(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *[{"text": f"Number {n} has one. And two. And three."} for n in range(500)])
    passages, counts = read(path, max_tokens=4, limit=4)
    assert [p.text for p in passages] == [
        "Number 0 has one.",
        "And two. And three.",
        "Number 1 has one.",
        passages[1].text,
    ]
    assert counts.passages == 4
    assert counts.split == 2
    assert counts.records == 2


def test_what_was_read_ahead_is_not_counted(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        jsonl(tmp_path / name, *[{"text": A if n % 3 else "short"} for n in range(80)])
    passages, counts = read(tmp_path, limit=100)
    assert len(passages) == counts.passages == 100
    assert counts.records == 100 + counts.dropped["too short"] == 151


def test_reading_is_lazy_and_counts_tokens_by_the_batch(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *[{"text": f"{A} {n}"} for n in range(1000)])
    calls: list[int] = []

    def count(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return words(texts)

    counts = Counts()
    stream = read_passages(SourceSettings(str(path)), count, counts)
    next(stream)
    assert counts.records < 200
    assert sum(1 for _ in stream) == 999
    assert len(calls) < 30
    assert sum(calls) == 1000
