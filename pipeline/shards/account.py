"""What becomes of a stage's shards: shown while it runs, written to the log, and kept in the store where it must be
known later; how many may be bad.
"""

from dataclasses import dataclass, field
from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.progress import Gauge
from coreinfer.wording import counted
from pipeline.joblog import Log
from pipeline.shards import marks
from pipeline.shards.crew import Event
from pipeline.shards.plan import Plan
from pipeline.shards.store import Store

BAD = "add --max-bad-shards"


@dataclass
class Account:
    """Of one stage.

    Attributes:
        todo: shards that were not done before.
        allowed: bad shards at most; None: none, and no option says how many. ``before``: those of other stages, and
            files.
        bad: why each of them is.
        together: shards that ran in batches of so many texts at most, since memory ran out.
        seconds: of all workers, on shards.
        slow: what is said of workers that are late, until more is heard of them.
    """

    plan: Plan
    store: Store
    todo: int
    allowed: int | None
    gauge: Gauge
    log: Log
    before: int = 0
    done: int = 0
    passages: int = 0
    seconds: float = 0.0
    alive: int = 0
    died: int = 0
    bad: dict[int, str] = field(default_factory=dict)
    together: dict[int, int] = field(default_factory=dict)
    slow: dict[int, str] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Of a crew.

        Raises:
            CoreInferError: more shards are bad than may be; this one is named.
        """
        self.log.put(
            event.what, shard=event.shard, worker=event.worker, passages=event.passages or None,
            seconds=event.seconds or None, together=event.together, why=event.why, trace=event.trace,
        )  # fmt: skip
        self.alive += (event.what == "started") - (event.what in ("died", "left"))
        self.died += event.what == "died"
        self.slow.pop(event.worker, None)
        if event.what == "slow":
            self.slow[event.worker] = event.why
        if event.what == "done":
            self._hear_done(event)
        if event.what == "bad":
            self._hear_bad(event)
        crew = f", {counted(self.alive, 'worker')}" + f", {self.died} died" * bool(self.died)
        far = f"{self.done} of {counted(self.todo, 'shard')}{crew}" + f", {len(self.bad)} bad" * bool(self.bad)
        self.gauge(0, "; ".join([far, *self.slow.values()]))

    def _hear_done(self, event: Event) -> None:
        shard = int(event.shard or 0)
        self.done += 1
        self.passages += event.passages
        self.seconds += event.seconds
        marks.remove(self.store, marks.BAD, shard)
        if event.together is not None:
            self.together[shard] = event.together
            marks.write(self.store, marks.FEWER, shard, {"together": event.together})

    def _hear_bad(self, event: Event) -> None:
        shard = int(event.shard or 0)
        self.bad[shard] = event.why
        marks.write(self.store, marks.BAD, shard, {"why": event.why})
        if len(self.bad) > (self.allowed or 0):
            rows = self.plan.rows(shard)
            others = f", as {counted(self.allowed, 'other')} could not" if self.allowed else ""
            allow = "" if self.allowed is None else f", or {BAD} {self.before + len(self.bad)}"
            raise CoreInferError(
                f"shard {shard} (passages {rows.start} to {rows.stop - 1}) cannot be done{others}: {event.why}; leave "
                f"those passages out{allow}; what was done is kept"
            )

    def row(self) -> dict[str, Any]:
        """For programs."""
        return {
            "shards": self.plan.count, "to_do": self.todo, "done": self.done, "passages": self.passages,
            "worker_seconds": round(self.seconds, 3), "workers_died": self.died,
            "bad": {str(shard): why for shard, why in sorted(self.bad.items())},
            "in_smaller_batches": sorted(self.together),
        }  # fmt: skip
