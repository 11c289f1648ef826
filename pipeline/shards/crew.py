"""Who does the shards of a stage: this process, several on this machine, or actors on a Ray cluster. What comes out is
the same, bit for bit.
"""

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from pipeline.shards.labour import FEWER, Answer, Labour
from pipeline.shards.tasks import Task

TRIES = 3  # at a shard, of workers that die and of a worker that fails

What = Literal["started", "begun", "slow", "died", "left", "done", "failed", "bad"]


@dataclass(frozen=True)
class Event:
    """Something that happened: to a worker (started, died, left for want of room), or to a shard that it had. That one
    was begun is between the workers and who gives them work.

    Attributes:
        together: texts run together at most, where memory forced fewer than usual.
        why: of what went wrong, in one line; ``trace`` says more.
    """

    what: What
    worker: int
    shard: int | None = None
    passages: int = 0
    seconds: float = 0.0
    together: int | None = None
    why: str = ""
    trace: str = ""


Hear = Callable[[Event], Any]


class Crew(Protocol):
    """Does shards, in any order; each is committed when that is reported."""

    def work(self, task: Task, shards: Sequence[int], slots: "Slots", tick: Tick, hear: Hear) -> None:
        """Each of ``shards`` is done, or found to be bad, and ``hear`` is told: it may raise, and that ends the work.
        ``tick`` hears of passages. Both are called in the thread of the caller.

        Raises:
            CoreInferError: a worker finds that it must not work, or cannot; what was done stays.
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


class Left(Exception):
    """A worker that has no place to work in any more: the others go on without it."""


class Hand(Protocol):
    """One place of a crew: a worker, and after its death another."""

    number: int
    slot: str

    def ask(self, shard: int, fewest: bool = False) -> Answer | None:
        """What the worker says when it has done a shard; None if it is dead. ``fewest``: see ``Labour``.

        Raises:
            Left: there is no room for it.
        """
        ...

    def bury(self) -> str:
        """End what is left of the worker; how it ended, in words."""
        ...

    @property
    def stopped(self) -> bool:
        """Whether nobody waits for it any more."""
        ...


class Here:
    """This process, with a model that it has already."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def work(self, task: Task, shards: Sequence[int], slots: Slots, tick: Tick, hear: Hear) -> None:
        hand = Own(task, slots.name(0), self.model, tick)
        hear(Event("started", 0))
        for shard in shards:
            settle(hand, task, shard, hear)


class Own:
    """This process as a worker."""

    number, stopped = 0, False

    def __init__(self, task: Task, slot: str, model: Any, tick: Tick) -> None:
        self.slot, self._tick, self._labour = slot, tick, Labour(task, slot, model)

    def ask(self, shard: int, fewest: bool = False) -> Answer | None:
        return self._labour.answer(shard, self._tick, fewest)

    def bury(self) -> str:
        return ""


def settle(hand: Hand, task: Task, shard: int, hear: Hear) -> None:
    """Have a shard done, or find that it cannot be; tell ``hear``.

    A worker's death may be the system's doing, for want of memory, and then the last try is with one text at a time.
    Not an earlier one: last bits may be others then, and a worker that is killed once is mostly killed for no reason
    of its own.

    Raises:
        CoreInferError, OSError, Left: see ``Crew`` and ``Hand``.
    """
    begun, number, why, deaths = time.perf_counter(), hand.number, "", 0
    for _ in range(TRIES):
        fewest = deaths == TRIES - 1
        answer = hand.ask(shard, fewest)
        if answer is None:
            how = hand.bury()
            if hand.stopped:
                return
            deaths += 1
            hear(Event("died", number, shard, why=how))
            hear(Event("started", number))
            answer = _left_behind(hand, task, shard, fewest)
            alone = ", the last with one text at a time" * fewest
            why = f"{deaths} workers died at it{alone} ({how}): give fewer --workers if memory ran out"
        elif "fault" in answer:
            hand.bury()
            hear(Event("failed", number, shard, why=answer["fault"], trace=answer.get("trace", "")))
            why = str(answer["fault"])
        if heeded(answer):
            taken = answer.get("seconds", round(time.perf_counter() - begun, 3))
            hear(Event("done", number, shard, int(answer["done"]), taken, answer.get("together")))
            return
    hear(Event("bad", number, shard, why=why))


def _left_behind(hand: Hand, task: Task, shard: int, fewest: bool) -> Answer:
    """What a dead worker would have said, if it had committed the shard."""
    if not task.is_done(shard, hand.slot):
        return {}
    return {"done": len(task.place.plan.rows(shard))} | ({"together": FEWER[-1]} if fewest else {})


def heeded(answer: Answer) -> bool:
    """Whether the shard is done; a worker's refusal becomes one of ours."""
    if "refused" in answer:
        raise CoreInferError(str(answer["refused"]))
    if "disk" in answer:
        raise OSError(*answer["disk"])
    return "done" in answer
