"""What was measured is kept whole, under all that decides it; whatever else lies there is measured again."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.passages import BLOCK
from pipeline.shards.measured import Measured
from pipeline.shards.plan import Plan
from pipeline.shards.store import open_store
from pipeline.shards.tasks import Place
from pipeline.shards.ways import Ways
from pipeline.shards.work import Work

NUMBERS = np.array([[0.5, np.pi], [1e-9, -2.0]])


@pytest.fixture
def reused() -> list[int]:
    """One for each step that was there."""
    return []


@pytest.fixture
def measured(tmp_path: Path, reused: list[int]) -> Measured:
    store = open_store(tmp_path / "store", {"texts": "these"}, print, False)
    return Measured(store, nullcontext, lambda: reused.append(1))


def make() -> list[NDArray[np.float64]]:
    return [NUMBERS, NUMBERS[:1]]


def never() -> list[NDArray[np.float64]]:
    raise AssertionError("it was measured before")


def test_a_step_is_measured_once(measured: Measured, reused: list[int]) -> None:
    for how in (make, never):
        found = measured.under({"recorded": "a"})("choose K", {"keep": 0.4}, how)
        assert [array.tobytes() for array in found] == [array.tobytes() for array in make()]
    assert reused == [1]


@pytest.mark.parametrize(
    ("of", "step", "more"),
    [("b", "choose K", {"keep": 0.4}), ("a", "curve", {"keep": 0.4}), ("a", "choose K", {"keep": 0.2})],
)
def test_whatever_decides_it_counts(measured: Measured, of: str, step: str, more: dict[str, float]) -> None:
    measured.under({"recorded": "a"})("choose K", {"keep": 0.4}, make)
    with pytest.raises(AssertionError, match="measured before"):
        measured.under({"recorded": of})(step, more, never)


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[70] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize("spoil", [halve, flip, Path.unlink])
def test_what_is_damaged_is_measured_again(
    measured: Measured, reused: list[int], spoil: Callable[[Path], object]
) -> None:
    remember = measured.under({})
    remember("curve", {}, make)
    (file,) = measured.store.folder.glob("curve-*")
    spoil(file)
    assert remember("curve", {}, make)[0].tobytes() == NUMBERS.tobytes()
    assert not reused
    assert len(remember("curve", {}, never)) == 2


def test_nobody_waits_for_who_measures(tmp_path: Path, new_cache: Path) -> None:
    """Another build that measures on the same texts opens the same folder, and sweeps nothing that is being written."""
    facts, place, said = {"texts": "these"}, Place(tmp_path / "none", Plan(1, BLOCK), "cpu"), list[str]()
    with Work(Ways(), said.append) as one, Work(Ways(), said.append) as other:
        first = one.measured(facts, place).under({})("curve", {}, make)
        (store,) = (new_cache / "builds").glob("measure-*")
        (part := store / ".curve.part").touch()
        again = other.measured(facts, place).under({})("curve", {}, never)
        assert [array.tobytes() for array in first] == [array.tobytes() for array in again]
        assert part.exists()
        assert (one.reused, other.reused, said) == ({}, {"measurements": 1}, [])
        with pytest.raises(AssertionError, match="one corpus"):
            one.measured({"texts": "others"}, place)
