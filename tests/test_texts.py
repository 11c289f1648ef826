"""Texts to evaluate on: long enough, evenly over the dataset, with their domains."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_corpus

from coreinfer import CoreInferError
from coreinfer.evaluate import Plan, Text
from pipeline.sources import SourceSettings
from pipeline.texts import evenly, read_texts

PLAN = Plan((0.4,), (4, 8), 10)


def words(count: int) -> str:
    return " ".join(["word"] * count)


def split(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
    """A tokenizer: a token a word."""
    return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


def numbered(count: int) -> list[Text]:
    return [Text(str(i), np.zeros(1, np.int32)) for i in range(count)]


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_short_texts_are_counted_and_left_out(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(n) for n in (18, 17, 30, 6, 18)])
    found = read_texts(SourceSettings(str(corpus)), PLAN, split)
    assert [text.name for text in found.texts] == ["c.jsonl:1", "c.jsonl:3", "c.jsonl:5"]
    assert (found.seen, found.short) == (5, 2)
    assert {len(text.ids) for text in found.texts} == {18}


@pytest.mark.parametrize(("count", "ticked"), [(900, []), (2100, [1024, 1024])])
def test_a_long_reading_is_shown(tmp_path: Path, count: int, ticked: list[int]) -> None:
    corpus, seen = write_corpus(tmp_path / "c.jsonl", [words(18)] * count), list[int]()
    assert read_texts(SourceSettings(str(corpus)), PLAN, split, 2, tick=seen.append).seen == count
    assert seen == ticked


@pytest.mark.parametrize("long", [0, 1])
def test_too_few_are_refused_with_their_number(tmp_path: Path, long: int) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(17)] * 3 + [words(18)] * long)
    with pytest.raises(CoreInferError, match=rf"^{long} of {3 + long} texts of .*c.jsonl' have the 18 tokens"):
        read_texts(SourceSettings(str(corpus)), PLAN, split)


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (320, 64), (100_000, 7), (50_000, 500), (5, 9), (0, 3), (9, 1)])
def test_a_limit_takes_texts_evenly(count: int, limit: int) -> None:
    picks = [int(text.name) for text in evenly(numbered(count), limit)]
    assert len(picks) == min(count, limit)
    assert picks == sorted(set(picks))
    if count > limit > 1:
        gaps = np.diff([*picks, count])
        assert picks[0] == 0
        assert gaps.max() <= 2 * count / limit
        assert picks[-1] >= count - 1 - count / limit


def test_without_a_limit_all_are_taken() -> None:
    assert len(evenly(numbered(10_000), None)) == 10_000


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_domains_are_found(tmp_path: Path, kind: str) -> None:
    rows = [{"text": words(20), "topic": "x", "domain": "a", "mine": "m", "number": 3} for _ in range(4)]
    rows[1].update(domain="b", mine=None, number=4)
    rows[2].update(text=words(3))
    source = SourceSettings(str(write_rows(tmp_path / f"c.{kind}", rows)))
    assert [t.domain for t in read_texts(source, PLAN, split).texts] == ["a", "b", "a"]
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="topic").texts] == ["x"] * 3
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="mine").texts] == ["m", None, "m"]
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="number").texts] == ["3", "4", "3"]
    assert [t.domain for t in read_texts(source, PLAN, split, limit=2).texts] == ["a", "a"]
    with pytest.raises(CoreInferError, match=r"no domain in a column 'none': .* --domain-column"):
        read_texts(source, PLAN, split, domain_column="none")


def test_no_domain_column_is_fine(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(20)] * 2)
    found = read_texts(SourceSettings(str(corpus)), PLAN, split)
    assert [text.domain for text in found.texts] == [None, None]
    txt = tmp_path / "c.txt"
    txt.write_text(f"{words(20)}\n\n{words(20)}\n")
    assert len(read_texts(SourceSettings(str(txt)), PLAN, split).texts) == 2
