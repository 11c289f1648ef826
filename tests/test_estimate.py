"""What a build says of its time before the long stages: from passages of everywhere, in batches like its own."""

from collections.abc import Callable
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import estimate, passages
from pipeline.estimate import BATCHES, WORTH, like_batches, seconds_needed
from pipeline.passages import BLOCK, Passage, write_passages

TOTAL, BATCH = 40 * WORTH, 16
RECORDER: Any = SimpleNamespace(lengths=lambda texts: [len(text) for text in texts], batch=BATCH)


def written(folder: Path, texts: list[str]) -> Path:
    write_passages((Passage(i, text, "file") for i, text in enumerate(texts)), folder / "p.parquet")
    return folder / "p.parquet"


def test_passages_are_timed_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a corpus sorted by length, in windows of 500, each of which is read once."""
    monkeypatch.setattr(passages, "WINDOW", 500)
    whole, groups, timed = pq.ParquetFile.read_row_group, list[int](), list[list[str]]()

    def read(file: Any, group: int, **named: Any) -> Any:
        groups.append(group)
        return whole(file, group, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    path = written(tmp_path, ["x" * (i // 100) for i in range(TOTAL)])
    assert (seconds_needed(path, TOTAL, timed.append, RECORDER) or 0) > 0
    assert [len(texts) for texts in timed] == [BATCHES * BATCH, BATCHES * BATCH]  # to warm up, and to time
    assert np.mean([len(text) for text in timed[0]]) == pytest.approx(TOTAL / 200, rel=0.05)
    assert len(groups) == len(set(groups)) == TOTAL // 500


def seconds_of_batches(texts: list[str]) -> float:
    """A recorder's, at 1 s a character: sorted by length, each text of a batch padded to the longest."""
    sizes = sorted(map(len, texts))
    return sum(len(some) * some[-1] for some in (sizes[at : at + BATCH] for at in range(0, len(sizes), BATCH)))


def of_one_hump(random: Random) -> int:
    return 1 + int(random.gauss(200, 40))


def of_two_humps(random: Random) -> int:
    return 1 + int(random.gauss(80, 15) if random.random() < 0.75 else random.gauss(320, 30))


@pytest.mark.parametrize("length", [of_one_hump, of_two_humps])
def test_it_is_what_the_blocks_of_a_build_take(
    length: Callable[[Random], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes as the work is."""
    random, now = Random(0), [0.0]

    def work(texts: list[str]) -> None:
        now[0] += seconds_of_batches(texts)

    texts = ["x" * length(random) for _ in range(8 * BLOCK)]
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    taken = sum(seconds_of_batches(texts[at : at + BLOCK]) for at in range(0, len(texts), BLOCK))
    found = seconds_needed(written(tmp_path, texts), len(texts), work, RECORDER)
    assert found == pytest.approx(taken, rel=0.05)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=200), st.integers(1, 20), st.integers(1, 40))
def test_batches_are_whole_and_stand_for_all(lengths: list[int], batch: int, count: int) -> None:
    picked, times = like_batches(lengths, batch, count)
    order = np.argsort(lengths, kind="stable").tolist()
    batches = [order[at : at + batch] for at in range(0, len(order), batch)]
    mine = [some for some in batches if set(some) <= set(picked)]
    assert [i for some in mine for i in some] == picked
    assert len(mine) == min(count, len(batches))
    assert times * sum(max(1, lengths[i]) for i in picked) == pytest.approx(sum(max(1, size) for size in lengths))


def test_a_few_passages_are_not_timed() -> None:
    assert seconds_needed(Path("nowhere"), WORTH - 1, lambda texts: pytest.fail("timed"), RECORDER) is None
