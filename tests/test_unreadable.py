"""Files that are not UTF-8: named with the line, refused where most of a file is not, and left out where that is
allowed.
"""

import json
import random
from pathlib import Path

import pytest
from corpora import A, B, jsonl, parquet, read, refusal, words, write

from coreinfer.errors import CoreInferError
from pipeline.passages import Passage
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.unreadable import HEAD

GOOD, BAD = json.dumps({"text": A}).encode(), '{"text": "Ein Gruß aus der Küche."}'.encode("latin-1")
END = "convert it to UTF-8, mend or remove it"
LEAVE = "or add --max-bad-shards {} to leave out what cannot be read of it"


def lines(path: Path, *content: bytes) -> Path:
    return write(path, b"".join(line + b"\n" for line in content))


def read_without(folder: Path, most: int | None) -> tuple[list[Passage], Counts]:
    counts = Counts(most_bad=most)
    return list(read_passages(SourceSettings(str(folder)), words, counts)), counts


@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_a_file_of_random_bytes_is_refused(kind: str, tmp_path: Path) -> None:
    jsonl(tmp_path / "p1.jsonl", *[{"text": f"{A} {n}"} for n in range(100)])
    write(tmp_path / f"p2.{kind}", random.Random(0).randbytes(50_000))
    assert refusal(tmp_path).startswith(f"p2.{kind} is not UTF-8 in ")
    with pytest.raises(CoreInferError, match=r"at line 1: convert .*, or add --max-bad-shards 1 to leave out"):
        read_without(tmp_path, 0)
    passages, counts = read_without(tmp_path, 1)
    assert (len(passages), counts.records, counts.dropped) == (100, 100, {})
    assert list(counts.bad_files) == [f"p2.{kind}"]
    assert counts.sentence().endswith(f"dropped: none; left out, whole or in part: p2.{kind}")


@pytest.mark.parametrize(("good", "bad", "refused"), [(0, 1, True), (1, 1, False), (9, 10, True), (10, 10, False)])
def test_more_than_half_of_a_short_file_must_decode(good: int, bad: int, refused: bool, tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", *[GOOD] * good, *[BAD] * bad)
    if refused:
        records = f"{good + bad} record" + "s" * (good + bad > 1)
        assert refusal(path) == f"a.jsonl is not UTF-8 in {bad} of its {records}, the first at line {good + 1}: {END}"
    else:
        assert read(path)[1].undecodable == {"a.jsonl": (bad, good + 1)}


def test_a_long_file_is_judged_by_its_start_and_at_its_end(tmp_path: Path) -> None:
    early = lines(tmp_path / "early.jsonl", *[BAD] * 40, *[GOOD] * 200)
    assert f"is not UTF-8 in 40 of its first {HEAD} records, the first at line 1: " in refusal(early)
    late = lines(tmp_path / "late.jsonl", *[GOOD] * 100, *[BAD] * 101)
    assert "is not UTF-8 in 101 of its 201 records, the first at line 101: " in refusal(late)
    few = lines(tmp_path / "few.jsonl", *[GOOD] * 100, *[BAD] * 100)
    assert read(few)[1].sentence().endswith("100 undecodable; undecodable: 100 in few.jsonl (the first at 101)")
    assert len(read(late, limit=50)[0]) == 50  # its end was not asked for


def test_garbage_that_happens_to_decode_is_not_called_json(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", BAD, BAD, b"q")
    assert refusal(path) == f"a.jsonl is not UTF-8 in 2 of its first 2 records, the first at line 1: {END}"
    assert refusal(lines(path, BAD, GOOD, b"q")).startswith("a.jsonl:3 is bad JSON (Expecting value at column 1)")


def test_rows_of_parquet_are_judged_too(tmp_path: Path) -> None:
    import pyarrow as pa

    raw = pa.array([BAD, A.encode(), BAD], pa.binary())
    path = parquet(tmp_path / "a.parquet", text=pa.Array.from_buffers(pa.string(), 3, raw.buffers()))
    assert refusal(path) == f"a.parquet is not UTF-8 in 2 of its 3 records, the first at row 1: {END}"


def test_only_some_of_many_spoilt_files_are_named(tmp_path: Path) -> None:
    for number in range(7):
        lines(tmp_path / f"{number}.jsonl", GOOD, GOOD, BAD)
    said = read(tmp_path)[1].sentence()
    assert said.endswith("1 in 4.jsonl (the first at 3), and in 2 more files")
    assert "5.jsonl" not in said


@pytest.mark.parametrize("kind", ["jsonl", "csv", "txt"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32", "utf-32-le"])
def test_wide_encodings_are_told(kind: str, encoding: str, tmp_path: Path) -> None:
    content = {"jsonl": f'{{"text": "{A}"}}\n' * 2, "csv": f"text\n{A}\n", "txt": f"{A}\n\n{B}\n"}[kind]
    said = refusal(write(tmp_path / f"a.{kind}", content.encode(encoding)))
    assert said.startswith(
        (f"a.{kind} is UTF-{encoding[4:6]}, as its", f"a.{kind} seems to be UTF-", f"a.{kind} starts")
    )
    assert encoding == "utf-32-le" or said.endswith(": convert it to UTF-8")


def test_nul_bytes_are_no_text(tmp_path: Path) -> None:
    assert refusal(write(tmp_path / "a.txt", bytes(9000))).startswith("a.txt starts with NUL bytes, which are no text")
    assert len(read(write(tmp_path / "b.txt", f"{A}\0{B}"))[0]) == 1


def test_the_remedy_is_what_the_verb_has(tmp_path: Path) -> None:
    """A verb without --max-bad-shards does not name it, and the number is one that is enough."""
    for name in ("a", "b"):
        write(tmp_path / f"{name}.parquet", b"PAR1 nothing of the kind PAR1")
    jsonl(tmp_path / "c.jsonl", {"text": A})
    assert refusal(tmp_path).endswith("replace or remove it")
    for most in (0, 1):
        with pytest.raises(CoreInferError) as caught:
            read_without(tmp_path, most)
        assert str(caught.value).endswith("replace or remove it, " + LEAVE.format(most + 1))
    assert list(read_without(tmp_path, 2)[1].bad_files) == ["a.parquet", "b.parquet"]
