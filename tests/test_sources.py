"""Datasets of every kind become the same passages; the unusable is counted, the malformed refused by name."""

import gzip
import json
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.errors import CoreInferError
from pipeline.sources import Counts, Passage, SourceSettings, _even_cuts, read_passages, split_text

Tokens = Callable[[list[str]], list[int]]
A, B = "The first text of this corpus.", "A second text, with “quotes”."


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def characters(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def with_ends(texts: list[str]) -> list[int]:
    """Like a tokenizer that adds a start and an end: units count more than they do together."""
    return [len(text) + 2 for text in texts]


def superadditive(texts: list[str]) -> list[int]:
    """Units count less than they do together."""
    return [len(text) + text.count(" ") * 3 for text in texts]


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


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"title": "x" * 30, "text": A}, A),
        ({"id": 7, "summary": A}, A),
        ({"title": "x" * 30, "content": A}, A),
        ({"id": "0012", "sentence": A}, A),
    ],
)
def test_the_text_column_is_found(row: dict[str, object], expected: str, tmp_path: Path) -> None:
    assert [p.text for p in read(jsonl(tmp_path / "a.jsonl", row))[0]] == [expected]
    columns: dict[str, object] = {name: [value] for name, value in row.items()}
    if "id" not in row or row["id"] == 7:  # Parquet's types decide, not what its strings look like
        assert [p.text for p in read(parquet(tmp_path / "a.parquet", **columns))[0]] == [expected]


def test_nulls_do_not_hide_the_text_column(tmp_path: Path) -> None:
    rows = [{"text": None, "title": "a title that is long enough"}] * 100 + [{"text": A, "title": None}]
    passages, counts = read(jsonl(tmp_path / "a.jsonl", *rows))
    assert [p.text for p in passages] == [A]
    assert counts.dropped == {"null": 100}


@pytest.mark.parametrize("row", [{"title": A, "abstract": B}, {"content": A, "body": B}, {"n": 1}])
def test_an_ambiguous_text_column_is_refused_with_the_columns(row: dict[str, object], tmp_path: Path) -> None:
    for path in (
        jsonl(tmp_path / "a.jsonl", row),
        parquet(tmp_path / "a.parquet", **{name: [value] for name, value in row.items()}),
    ):
        message = refusal(path)
        assert "--text-column" in message
        assert all(repr(name) in message for name in row)


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
        "9 records read, 1 passages, 0 texts split, dropped: 2 empty, 1 not text, 2 null, 1 too short, 2 undecodable"
    )


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


@pytest.mark.parametrize("row", ["1,2,3", "1", '1,"never closed\n2,x\n'])
def test_malformed_csv_is_refused_at_its_line(row: str, tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "a.csv", f"id,text\n0,{A}\n{row}\n")).startswith("a.csv:3 ")


def test_a_corrupt_parquet_is_refused(tmp_path: Path) -> None:
    good = parquet(tmp_path / "a.parquet", text=[A * 50, B * 50]).read_bytes()
    assert "a.parquet" in refusal(write(tmp_path / "a.parquet", b"PAR1 nothing of the kind PAR1"))
    assert "b.parquet" in refusal(write(tmp_path / "b.parquet", good[: len(good) // 2]))


@pytest.mark.parametrize("content", ["", "\n\n", "tiny\n"])
def test_a_dataset_without_passages_is_refused(content: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path / "a.txt", content))
    assert f"{1 if content.strip() else 0} records read" in message


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
    assert counts.records <= 8


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


def test_sentences_stay_whole_and_pieces_are_even() -> None:
    text = " ".join(f"Sentence number {n} here." for n in range(11))  # 44 words
    pieces = split_text(text, 20, words)
    assert words(pieces) == [16, 12, 16]
    assert " ".join(pieces) == text
    assert all(piece.endswith(".") for piece in pieces)


def test_a_little_too_much_does_not_leave_a_tiny_last_piece() -> None:
    assert words(split_text("Yes it is. " * 86, 256, words)) == [129, 129]


def test_long_sentences_break_at_whitespace_and_long_words_inside() -> None:
    pieces = split_text("one two three four five six seven", 3, words)
    assert " ".join(pieces) == "one two three four five six seven"
    assert max(words(pieces)) <= 3
    pieces = split_text("x" * 1000, 64, characters)
    assert "".join(pieces) == "x" * 1000
    assert min(characters(pieces)) > 30


def test_chinese_sentences_need_no_whitespace() -> None:
    pieces = split_text("今天天气很好。我们去公园吧！你来吗？" * 3, 20, characters)
    assert all(piece[-1] in "。！？" for piece in pieces)


def test_a_character_above_the_limit_is_refused() -> None:
    with pytest.raises(CoreInferError, match="max tokens is 2"):
        split_text("abc", 2, with_ends)


def test_long_texts_take_few_calls() -> None:
    calls: list[int] = []

    def count(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return words(texts)

    pieces = split_text("This sentence has six words here. " * 20_000, 256, count)
    assert len(pieces) == -(-120_000 // 252)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "run", ["." * 200_000, ")" * 200_000, "\n" * 200_000, ".)" * 100_000, "。" * 200_000, " \n" * 90_000]
)
def test_runs_of_marks_cost_no_quadratic_time(run: str) -> None:
    pieces = split_text(f"a.{run}b", 5_000, characters)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", f"a.{run}b")


ALPHABET = st.text(st.sampled_from("ab .!?\n\t\"')。！」é😀\u2003\x1c"), max_size=300)


@given(ALPHABET, st.integers(3, 40), st.sampled_from([characters, with_ends, superadditive]))
def test_splitting_loses_only_whitespace_and_keeps_to_the_limit(text: str, most: int, count: Tokens) -> None:
    pieces = split_text(text, most, count)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() and piece for piece in pieces)
    assert max(count(pieces), default=0) <= most


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(1, 9))
def test_any_text_by_words(text: str, most: int) -> None:
    pieces = split_text(text, most, words)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert max(words(pieces), default=0) <= most


@given(st.lists(st.integers(0, 10), min_size=1, max_size=60))
def test_cuts_are_the_fewest_and_none_is_too_long(sizes: list[int]) -> None:
    cuts = _even_cuts(sizes, 10)
    groups = [sum(sizes[a:b]) for a, b in pairwise(cuts)]
    fewest, filled = 1, 0
    for size in sizes:
        fewest, filled = (fewest, filled + size) if filled + size <= 10 else (fewest + 1, size)
    assert max(groups) <= 10
    assert sum(groups) == sum(sizes)
    assert len(groups) == fewest


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
