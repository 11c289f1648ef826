"""Passages on disk: written as they come, read by the window."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import passages
from pipeline.passages import Passage, read_windows, spread, texts_at, write_passages

TEXTS = ["One.", "?", "Ein Tisch für zwei. 東京の天気は？ 🍕", "Two words.", "a", "The sixth.", "The seventh. " * 9]


@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_passages_round_trip_in_windows(count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passages, "WINDOW", 3)
    path, ticks = tmp_path / "passages.parquet", list[int]()
    texts = TEXTS[:count]
    made = (Passage(i, text, f"file:{i}") for i, text in enumerate(texts))
    assert write_passages(made, path, ticks.append) == count == sum(ticks)
    windows = list(read_windows(path))
    assert [start for start, _ in windows] == list(range(0, count, 3))
    assert [text for _, window in windows for text in window] == texts
    assert pq.read_table(path).to_pylist() == [
        {"id": i, "text": text, "source": f"file:{i}"} for i, text in enumerate(texts)
    ]
    sources = [source for _, window in read_windows(path, "source") for source in window]
    assert sources == [f"file:{i}" for i in range(count)]
    odd = np.arange(1, count, 2)
    assert texts_at(path, odd) == [texts[i] for i in odd]


@given(st.integers(0, 5000), st.integers(0, 600))
def test_indices_are_spread_evenly(count: int, most: int) -> None:
    picked = spread(count, most)
    assert len(picked) == min(count, most)
    if len(picked):
        assert np.abs(picked - (np.arange(len(picked)) + 0.5) * count / len(picked)).max() <= 1
        assert len(set(picked)) == len(picked)
        assert 0 <= picked[0] <= picked[-1] < count
