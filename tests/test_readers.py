"""Files of every kind and datasets of the Hub give the same texts; the malformed is refused by name."""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from corpora import A, B, jsonl, make, parquet, read, refusal, write

from pipeline import readers
from pipeline.passages import Passage
from pipeline.sources import Counts


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "txt", "parquet"])
def test_every_kind_of_file_gives_the_same_texts(kind: str, tmp_path: Path) -> None:
    passages, counts = read(make(kind, tmp_path / f"corpus.{kind}"))
    assert [(p.id, p.text) for p in passages] == [(0, A), (1, B)]
    assert counts == Counts(records=2, passages=2)


@pytest.mark.parametrize(("kind", "places"), [("jsonl", (1, 3)), ("csv", (2, 3)), ("txt", (1, 4)), ("parquet", (1, 2))])
def test_the_source_says_where_a_text_starts(kind: str, places: tuple[int, int], tmp_path: Path) -> None:
    passages, _ = read(make(kind, tmp_path / f"corpus.{kind}"))
    assert [p.source for p in passages] == [f"corpus.{kind}:{place}" for place in places]


def test_gzip_is_read_and_a_truncated_one_refused(tmp_path: Path) -> None:
    packed = gzip.compress(jsonl(tmp_path / "a.jsonl", {"text": A}).read_bytes())
    assert read(write(tmp_path / "b.jsonl.gz", packed))[0][0].text == A
    assert "bad.jsonl.gz" in refusal(write(tmp_path / "bad.jsonl.gz", packed[:-12]))


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    for name, content in [("a.txt", A), ("a.csv", f"text\n{A}\n"), ("a.jsonl", json.dumps({"text": A}))]:
        assert [p.text for p in read(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))[0]] == [A]


def test_a_quoted_csv_field_keeps_its_lines_and_may_be_long(tmp_path: Path) -> None:
    long = "word " * 50_000 + "end"
    passages, _ = read(write(tmp_path / "a.csv", f'text\n"{A}\n{B}"\n{long}\n'), max_tokens=60_000)
    assert [p.text for p in passages] == [f"{A}\n{B}", long]
    assert [p.source for p in passages] == ["a.csv:2", "a.csv:4"]


def test_a_folder_is_read_sorted_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b/x.txt", "a.txt", ".hidden.txt", ".git/y.txt", "c.pdf"):
        write(tmp_path / name, f"This is the file {name}.")
    assert [p.source for p in read(tmp_path)[0]] == ["a.txt:1", "b/x.txt:1"]
    assert [p.source for p in read(tmp_path / "*.txt")[0]] == ["a.txt:1"]
    assert [p.id for p in read(tmp_path / "**" / "*.txt")[0]] == [0, 1]


def test_a_file_whose_name_looks_like_a_glob_is_itself(tmp_path: Path) -> None:
    assert len(read(write(tmp_path / "part[1].txt", A))[0]) == 1


def test_missing_and_unknown_files_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "none.jsonl")
    assert "no such file" in refusal("none.parquet")
    assert "no such file" in refusal(tmp_path / "*.jsonl")
    assert ".parquet" in refusal(write(tmp_path / "a.pdf", A))
    assert "--split" in refusal(write(tmp_path / "a.txt", A), split="test")


@pytest.mark.parametrize("kind", ["csv", "txt", "jsonl", "parquet"])
def test_undecodable_records_spoil_only_themselves(kind: str, tmp_path: Path) -> None:
    bad = b"A caf\xe9 that is not UTF-8 at all."
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        raw = pa.array([A.encode(), bad, B.encode()], pa.binary())
        parquet(path, text=pa.Array.from_buffers(pa.string(), 3, raw.buffers()))
    else:
        between = {"csv": b"\n", "txt": b"\n\n", "jsonl": b'"}\n{"text": "'}[kind]
        around = {"csv": (b"text\n", b"\n"), "txt": (b"", b""), "jsonl": (b'{"text": "', b'"}\n')}[kind]
        texts = [json.dumps(text)[1:-1].encode() if kind == "jsonl" else text.encode() for text in (A, B)]
        if kind == "csv":
            texts[1] = b'"' + texts[1] + b'"'
        write(path, around[0] + between.join([texts[0], bad, texts[1]]) + around[1])
    passages, counts = read(path)
    assert [p.text for p in passages] == [A, B]
    assert counts.dropped == {"undecodable": 1}


def test_dictionary_strings_of_parquet_are_texts(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", n=[1, 2, 3], label=pa.array([A, B, A]).dictionary_encode())
    assert [p.text for p in read(path)[0]] == [A, B, A]


@pytest.mark.parametrize("line", ['{"text": "cut of', "[1, 2]", '"a string"', "[" * 100_000, "null", "0", "[]"])
def test_malformed_json_is_refused_at_its_line(line: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", json.dumps({"text": A}) + "\n" + line + "\n"))
    assert message.startswith("a.jsonl:2 ")
    assert "one object a line" in message


def test_malformed_json_has_one_line_number_and_its_column(tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", json.dumps({"text": A}) + '\n  {"text": nothing}\n'))
    assert message == "a.jsonl:2 is bad JSON (Expecting value at column 12): write one object a line"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "cut of', "is bad JSON (Unterminated string starting at column 10)"),
        ('{"text": "a\\q"}', "is bad JSON (Invalid \\escape at column 12)"),
        ("[" * 100_000, "is bad JSON (nested too deeply)"),
        ("[1]", "is an array, not an object"), ('"a"', "is a string, not an object"),
        ("1.5", "is a number, not an object"), ("true", "is a truth value, not an object"),
        ("null", "is null, not an object"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_line_of_json_is_said_in_words(line: str, said: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.jsonl", json.dumps({"text": A}) + "\n" + line + "\n"))
    assert message == f"a.jsonl:2 {said}: write one object a line"


@pytest.mark.parametrize("row", ["1,2,3", "1", '1,"never closed\n2,x\n'])
def test_malformed_csv_is_refused_at_its_line(row: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "a.csv", f"id,text\n0,{A}\n{row}\n")).startswith("a.csv:3 ")


def test_a_corrupt_parquet_is_refused(tmp_path: Path) -> None:
    good = parquet(tmp_path / "a.parquet", text=[A * 50, B * 50]).read_bytes()
    assert "a.parquet" in refusal(write(tmp_path / "a.parquet", b"PAR1 nothing of the kind PAR1"))
    assert "b.parquet" in refusal(write(tmp_path / "b.parquet", good[: len(good) // 2]))


class Stream:
    """A stand-in for a streamed Hub dataset."""

    def __init__(self, rows: list[dict[str, object]], types: dict[str, str] | None) -> None:
        self.rows = rows
        self.features = {name: SimpleNamespace(dtype=kind) for name, kind in (types or {}).items()} or None

    def select_columns(self, names: list[str]) -> "Stream":
        return Stream([{name: row[name] for name in names} for row in self.rows], None)

    def __iter__(self) -> Iterator[dict[str, object]]:
        return iter(self.rows)


def hub(monkeypatch: pytest.MonkeyPatch, answer: object) -> list[tuple[object, ...]]:
    asked: list[tuple[object, ...]] = []

    def load_dataset(name: str, config: str | None, *, split: str | None, streaming: bool) -> object:
        asked.append((name, config, split, streaming))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr(readers, "check_hub", lambda what, name: None)
    return asked


@pytest.mark.parametrize("types", [None, {"label": "int64", "body": "string"}])
def test_a_hub_name_is_streamed(types: dict[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, Stream([{"label": 1, "body": A}, {"label": 2, "body": None}], types))
    passages, counts = read("me/data-v1.0", config="en", split="test")
    assert asked == [("me/data-v1.0", "en", "test", True)]
    assert passages == [Passage(0, A, "me/data-v1.0:1")]
    assert counts.dropped == {"null": 1}


def test_the_split_is_train_or_the_only_one_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (Stream([{"text": text}], {"text": "string"}) for text in (A, B))
    hub(monkeypatch, {"test": a, "train": b})
    assert read("me/data")[0][0].text == B
    hub(monkeypatch, {"validation": a})
    assert read("me/data")[0][0].text == A
    hub(monkeypatch, {"validation": a, "test": b})
    assert "validation, test: pass one to --split" in refusal("me/data")


def test_failures_of_the_hub_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, ConnectionError("no route\n  to host"))
    message = refusal("me/data")
    assert "'me/data'" in message
    assert "no route to host" in message
    assert "network" in message
    assert "'x' among 'text'" in (hub(monkeypatch, Stream([], {"text": "string"})) or refusal("me/d", text_column="x"))
