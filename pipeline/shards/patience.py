"""Which workers are at a shard for far longer than shards take. Such a worker is named, not ended: one that is slow for
a while is not dead.
"""

import time
from collections.abc import Callable, Iterator
from statistics import median

from pipeline.shards.crew import Event

TIMES, LEAST = 20, 600.0  # far longer: more than so many times the median, and than so many seconds
KNOWN = 3  # shards that must be done before their median says anything
EVERY = 10.0  # seconds between two looks


class Patience:
    """Seconds here are those in which somebody looked: a night in which the machine slept is ``2 * EVERY`` at most."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._looked, self._now = clock, clock(), 0.0
        self._begun = dict[int, tuple[int, float]]()  # the shard that a worker is at, and since when
        self._took = list[float]()

    def hear(self, event: Event) -> None:
        """What a worker does with a shard."""
        if event.shard is None:
            return
        self._go_on()
        _, begun = self._begun.pop(event.worker, (event.shard, None))
        if event.what in ("begun", "died", "failed"):  # from then on, or once more
            self._begun[event.worker] = event.shard, self._now
        elif event.what == "done" and begun is not None:
            self._took.append(self._now - begun)

    def late(self) -> Iterator[tuple[int, int, float, float]]:
        """(worker, its shard, seconds at it, seconds that shards take) of each that is late, once a shard."""
        self._go_on()
        if len(self._took) < KNOWN:
            return
        usual = median(self._took)
        for worker, (shard, begun) in list(self._begun.items()):
            if (taken := self._now - begun) > max(LEAST, TIMES * usual):
                del self._begun[worker]
                yield worker, shard, taken, usual

    def _go_on(self) -> None:
        now = self._clock()
        self._now, self._looked = self._now + min(now - self._looked, 2 * EVERY), now
