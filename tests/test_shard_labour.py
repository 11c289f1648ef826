"""A worker at a shard: what goes wrong there, and batches that are smaller where memory runs out."""

from pathlib import Path
from typing import Any

from fake_shards import FakeTask

from coreinfer.progress import Tick
from pipeline.shards.careful import BadShard
from pipeline.shards.crew import Event, Here, Slots
from pipeline.shards.labour import FEWER, Labour
from pipeline.shards.tasks import Do


class Failing(FakeTask):
    """Runs in this process; a shard fails as often as ``faults`` says, with what it says."""

    def load(self) -> Any: ...

    def begin(self, model: Any, slot: str) -> Do:
        def do(shard: int, tick: Tick, together: int | None = None) -> None:
            (self.folder / f"{shard}.{together}.{len(list(self.folder.iterdir()))}").touch()
            tick(2)
            if (fault := self.faults.get(str(shard))) == "numbers":
                raise BadShard("no numbers")
            if fault == "memory" or (fault == "some memory" and together is None):
                raise MemoryError
            tick(5)

        return do


def test_memory_that_runs_out_makes_batches_smaller(tmp_path: Path) -> None:
    """Then it is an error as any other; what was counted of a failed try is taken back."""
    events, ticks = list[Event](), list[int]()
    task = Failing(tmp_path, {"1": "some memory", "2": "memory", "3": "numbers"})
    Here(None).work(task, range(5), Slots("0of1", ()), ticks.append, events.append)
    ends = {event.shard: event for event in events if event.what in ("done", "bad")}
    assert [ends[shard].what for shard in range(5)] == ["done", "done", "bad", "bad", "done"]
    assert [ends[shard].together for shard in (0, 1, 4)] == [None, FEWER[1], None]
    assert [ends[shard].why for shard in (2, 3)] == ["memory runs out even with one text at a time", "no numbers"]
    assert sum(ticks) == 3 * 7


def test_the_fewest_texts_together_at_once(tmp_path: Path) -> None:
    made = Labour(Failing(tmp_path, {"0": "some memory"}), "0of1-0").answer(0, fewest=True)
    assert (made["done"], made["together"]) == (7, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["0.1.0"]
