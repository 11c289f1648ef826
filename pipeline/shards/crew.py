"""Who does the shards of a stage: this process, or several on this machine. What comes out is the same, bit for bit."""

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from coreinfer.progress import Tick
from pipeline.shards.tasks import Task


class Crew(Protocol):
    """Does shards, in any order; each is committed when that is reported."""

    def work(self, task: Task, shards: Sequence[int], slots: "Slots", tick: Tick) -> None:
        """All of ``shards``. ``tick`` hears of passages.

        Raises:
            CoreInferError: a shard that cannot be done; those that were stay.
            OSError: the disk refuses.
        """
        ...


class Slots:
    """Names of places for running sums: the same each time, so that a rerun goes on in them; ``taken`` are left out."""

    def __init__(self, head: str, taken: Collection[str]) -> None:
        self.head, self.taken = head, taken

    def name(self, worker: int) -> str:
        """Of the worker with this number."""
        names = (f"{self.head}-{worker}" + f"-{again}" * (again > 0) for again in range(len(self.taken) + 1))
        return next(name for name in names if name not in self.taken)


class Here:
    """This process, with a model that it has already."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def work(self, task: Task, shards: Sequence[int], slots: Slots, tick: Tick) -> None:
        do = task.begin(self.model, slots.name(0))
        for shard in shards:
            do(shard, tick)
