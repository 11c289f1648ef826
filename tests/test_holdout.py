"""What is held out: whole records, and no text that the build sees too."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import passages
from pipeline.holdout import LARGEST_PART, MOST, Split, hold_out, split
from pipeline.passages import Passage, write_passages


def distinct(count: int, seed: int = 0) -> Split:
    """A corpus in which every passage is a record and a text of its own."""
    return split(np.arange(count), np.arange(count, dtype=np.uint64), seed)


@given(st.lists(st.integers(1, 6), min_size=0, max_size=300), st.integers(0, 50), st.data())
@settings(deadline=None)
def test_no_record_and_no_text_is_on_both_sides(sizes: list[int], seed: int, data: st.DataObject) -> None:
    records = np.repeat(np.arange(len(sizes)), sizes)
    few = data.draw(st.integers(1, 2 * len(records) + 1))
    texts = np.random.default_rng(seed).integers(0, few, len(records)).astype(np.uint64)  # some of them repeat
    made = split(records, texts, seed)
    held, kept = made.held.tolist(), made.kept.tolist()
    assert held == sorted(set(held))
    assert kept == sorted(set(kept))
    assert not set(records[held]) & set(records[kept])
    assert not set(texts[held]) & set(texts[kept])
    assert len(held) <= min(MOST, max(len(records) // 50, min(len(records) // 20, 32)))
    assert len(records) - len(kept) <= len(records) // LARGEST_PART
    again = split(records, texts, seed)
    assert (again.held.tolist(), again.kept.tolist(), again.duplicates) == (held, kept, made.duplicates)


@pytest.mark.parametrize(
    ("count", "size"), [(0, 0), (19, 0), (20, 1), (640, 32), (1600, 32), (5000, 100), (10**5, 512)]
)
def test_how_many_are_held_out(count: int, size: int) -> None:
    made = distinct(count)
    assert len(made.held) == size
    assert len(made.kept) == count - size
    assert made.duplicates == 0


def test_another_seed_holds_out_others() -> None:
    assert distinct(1000, 0).held.tolist() != distinct(1000, 1).held.tolist()


def test_all_of_a_record_leaves_the_build_though_some_of_it_is_measured_on() -> None:
    """Five books of 100 passages: one of them is held out, 25 of its passages are measured on."""
    made = split(np.repeat(np.arange(5), 100), np.arange(500, dtype=np.uint64), 0)
    assert len(made.held) == 25
    assert len(made.kept) == 400
    assert len(set((made.held // 100).tolist())) == 1


@pytest.mark.parametrize("records", [1, 2, 3])
def test_a_corpus_of_so_few_records_that_none_can_be_spared(records: int) -> None:
    made = split(np.repeat(np.arange(records), 100), np.arange(100 * records, dtype=np.uint64), 0)
    assert len(made.held) == 0
    assert len(made.kept) == 100 * records


@pytest.mark.parametrize("seed", range(5))
def test_a_text_that_fills_the_corpus_stays_in_the_build(seed: int) -> None:
    texts = np.where(np.arange(400) % 10 == 0, np.arange(400), 7).astype(np.uint64)  # nine in ten are one text
    made = split(np.arange(400), texts, seed)
    assert len(made.held) == 20
    assert 7 not in texts[made.held]
    assert made.duplicates == 0
    assert len(split(np.arange(400), np.full(400, 7, np.uint64), seed).held) == 0


def test_duplicates_of_held_out_texts_leave_the_build() -> None:
    texts = (np.arange(1000) // 2).astype(np.uint64)  # each text twice, in records of their own
    made = split(np.arange(1000), texts, 0)
    assert len(made.held) == 32
    assert made.duplicates >= 24
    assert len(made.kept) + made.duplicates + len(made.held) == 1000


def test_records_and_texts_are_read_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In windows: a record may go on in the next one. 100 records of 3 passages; each record's last text repeats."""
    monkeypatch.setattr(passages, "WINDOW", 7)
    rows = [(f"a.txt:{r}", f"text {r} {p}" if p < 2 else f"shared {r // 2}") for r in range(100) for p in range(3)]
    write_passages((Passage(i, text, source) for i, (source, text) in enumerate(rows)), tmp_path / "p.parquet")
    made = hold_out(tmp_path / "p.parquet", 0)
    assert 0 < len(made.held) <= 15
    assert made.duplicates > 0
    for part in (0, 1):
        assert not {rows[i][part] for i in made.held} & {rows[i][part] for i in made.kept}
    assert {rows[i][0] for i in made.kept} | {rows[i][0] for i in made.held} == {source for source, _ in rows}
