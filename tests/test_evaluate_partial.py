"""Batches that a stopped run had finished are found again."""

from pathlib import Path

import pytest

from coreinfer.evaluate.partial import Partial, key_of


def test_finished_batches_are_found_again(tmp_path: Path) -> None:
    key, other = key_of({"keeps": [0.4], "x": 1}), key_of({"keeps": [0.4], "x": 2})
    first = Partial(tmp_path, key)
    assert first.done == {}
    for number in (0, 1):
        first.add(number, {"batch": number, "nll": [[0.1 + number, 1 / 3]]})
    assert Partial(tmp_path, other).done == {}
    assert Partial(tmp_path, key_of({"x": 1, "keeps": [0.4]})).done == first.done
    first.forget()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_dropped(tmp_path: Path, cut: int) -> None:
    made = Partial(tmp_path, "k")
    for number in (0, 1):
        made.add(number, {"batch": number, "nll": [[0.1]]})
    made.path.write_bytes(made.path.read_bytes()[:-cut])
    again = Partial(tmp_path, "k")
    assert list(again.done) == [0]
    again.add(1, {"batch": 1, "nll": [[0.1]]})
    assert list(Partial(tmp_path, "k").done) == [0, 1]
