"""What a build says of its time before the long stages: from passages of everywhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import passages
from pipeline.estimate import SAMPLE, WORTH, seconds_needed
from pipeline.passages import Passage, write_passages

TOTAL = 40 * WORTH


@pytest.fixture
def sorted_by_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In windows of 500."""
    monkeypatch.setattr(passages, "WINDOW", 500)
    texts = ("x" * (i // 100) for i in range(TOTAL))
    write_passages((Passage(i, text, "file") for i, text in enumerate(texts)), tmp_path / "p.parquet")
    return tmp_path / "p.parquet"


def test_passages_are_timed_from_everywhere(sorted_by_length: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, groups, timed = pq.ParquetFile.read_row_group, list[int](), list[list[str]]()

    def read(file: Any, group: int, **named: Any) -> Any:
        groups.append(group)
        return whole(file, group, **named)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", read)
    assert (seconds_needed(sorted_by_length, TOTAL, timed.append) or 0) > 0
    assert [len(texts) for texts in timed] == [SAMPLE, SAMPLE]  # to warm up, and to time
    assert np.mean([len(text) for text in timed[0]]) == pytest.approx(TOTAL / 200, rel=0.01)
    assert len(groups) == len(set(groups)) <= SAMPLE < TOTAL // 500


def test_a_few_passages_are_not_timed() -> None:
    assert seconds_needed(Path("nowhere"), WORTH - 1, lambda texts: pytest.fail("timed")) is None
