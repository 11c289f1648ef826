"""Rows read from a map's file are the rows of the map, and none of its pages come into memory."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.memory.peak import STATUS
from pipeline.mapped import rows_of

ARRAY = np.random.default_rng(0).normal(size=(90, 7)).astype("<f4")


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    np.save(path := tmp_path_factory.mktemp("maps") / "some.npy", ARRAY)
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


@given(rows=st.lists(st.integers(0, 89), max_size=200))
def test_any_rows_in_any_order(mapped: NDArray[np.float32], rows: list[int]) -> None:
    found = rows_of(mapped, np.array(rows, np.int64))
    assert type(found) is np.ndarray
    assert found.dtype == np.float32
    assert found.tobytes() == ARRAY[rows].tobytes() if rows else found.shape == (0, 7)


def test_what_is_no_whole_map_is_read_as_it_is(mapped: NDArray[np.float32]) -> None:
    rows = np.array([3, 0, 1])
    for some in (ARRAY, mapped[10:], mapped.T.T[::2]):
        assert rows_of(some, rows).tobytes() == np.asarray(some[rows], np.float32).tobytes()


def test_a_file_that_was_cut(tmp_path: Path) -> None:
    np.save(path := tmp_path / "some.npy", ARRAY)
    mapped = np.load(path, mmap_mode="r")
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(OSError, match="end before they should"):
        rows_of(mapped, np.arange(90))


@pytest.mark.skipif(not STATUS.exists(), reason="Linux says what of a file is in memory")
def test_a_map_does_not_come_into_memory(tmp_path: Path) -> None:
    np.save(path := tmp_path / "large.npy", np.ones((4096, 4096), np.float32))
    mapped = np.load(path, mmap_mode="r")
    before = from_files()
    for at in range(0, 4096, 256):
        assert rows_of(mapped, np.arange(at, at + 256)).sum() == 256 * 4096
    assert from_files() - before < 8 << 20
    assert mapped.sum(dtype=np.float64) == 1 << 24
    assert from_files() - before > 60 << 20


def from_files() -> int:
    line = next(line for line in STATUS.read_text("ascii").splitlines() if line.startswith("RssFile"))
    return int(line.split()[1]) << 10
