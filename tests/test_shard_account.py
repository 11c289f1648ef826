"""What becomes of shards and workers, as an account keeps, shows and logs it."""

from pathlib import Path

import pytest

from coreinfer import CoreInferError
from pipeline.joblog import Log
from pipeline.passages import BLOCK
from pipeline.shards import marks
from pipeline.shards.account import Account
from pipeline.shards.crew import Event
from pipeline.shards.plan import Plan
from pipeline.shards.store import open_store

PASSAGES = 9 * BLOCK


def account(tmp_path: Path, allowed: int | None, notes: list[str] | None = None) -> Account:
    store = open_store(tmp_path / "store", {"seed": 1}, print, shared=False)
    log = Log(tmp_path / "log.txt")
    return Account(Plan(PASSAGES, BLOCK), store, 9, allowed, lambda n, note="": (notes or []).append(note), log)


def test_bad_shards_are_counted_up_to_a_number(tmp_path: Path) -> None:
    """The first one too many ends the build, and is named; which ones were is known to whoever comes later."""
    kept = account(tmp_path, 1)
    kept.hear(Event("bad", 0, 2, why="its texts cannot be read"))
    with pytest.raises(
        CoreInferError,
        match=r"^shard 3 \(passages 1536 to 2047\) cannot be done, as 1 other could not: why not; leave those passages "
        r"out, or add --max-bad-shards 2; what was done is kept$",
    ):
        kept.hear(Event("bad", 1, 3, why="why not"))
    assert {shard: facts["why"] for shard, facts in marks.read(kept.store, marks.BAD).items()} == {
        2: "its texts cannot be read", 3: "why not",
    }  # fmt: skip
    kept.hear(Event("done", 1, 3, 512, 2.0))
    assert list(marks.read(kept.store, marks.BAD)) == [2]


def test_an_option_that_is_none_is_not_named(tmp_path: Path) -> None:
    with pytest.raises(
        CoreInferError, match=r"^shard 2 .* cannot be done: no; leave those passages out; what was done"
    ):
        account(tmp_path, None).hear(Event("bad", 0, 2, why="no"))


def test_what_happens_is_shown_and_logged(tmp_path: Path) -> None:
    notes = [""]
    kept = account(tmp_path, 0, notes)
    for event in (
        Event("started", 0), Event("started", 1), Event("done", 1, 4, 512, 2.5),
        Event("died", 0, 5, why="signal SIGKILL"), Event("done", 1, 6, 512, 1.0, together=4),
    ):  # fmt: skip
        kept.hear(event)
    assert notes[-1] == "2 of 9 shards, 1 worker, 1 died"
    assert marks.read(kept.store, marks.FEWER) == {6: {"together": 4}}
    row = kept.row()
    assert (row["done"], row["passages"], row["worker_seconds"], row["workers_died"]) == (2, 1024, 3.5, 1)
    assert row["in_smaller_batches"] == [6]
    kept.hear(Event("slow", 1, 7, why="worker 1 has been at shard 7 for 31 min"))
    kept.hear(Event("started", 0))
    assert notes[-1] == "2 of 9 shards, 2 workers, 1 died; worker 1 has been at shard 7 for 31 min"
    kept.hear(Event("died", 1, 7, why="signal SIGKILL"))
    assert notes[-1] == "2 of 9 shards, 1 worker, 2 died"
    lines = [line.partition(" ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert lines[2:4] == ["shard 4 worker 1 done passages 512 seconds 2.5", "shard 5 worker 0 died why signal SIGKILL"]
