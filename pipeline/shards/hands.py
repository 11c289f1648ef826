"""Several workers at one stage's shards: a thread for each gives it a shard after another, and one queue tells the
caller what happens.
"""

from collections.abc import Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Protocol

from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from coreinfer.wording import lasting
from pipeline.shards.crew import Event, Hand, Hear, Left, settle
from pipeline.shards.patience import EVERY, Patience
from pipeline.shards.tasks import Task


class Stoppable(Hand, Protocol):
    """A hand whose worker can be ended from another thread."""

    @property
    def name(self) -> str:
        """The worker, for who may want to end it."""
        ...

    def stop(self) -> None:
        """No more of it, now; whoever asks it something hears that it is dead."""
        ...


Queue = SimpleQueue[Event | BaseException]
Waiting = SimpleQueue[int | None]  # shards, each for one thread; None: there will be no more


def work_all(hands: Sequence[Stoppable], task: Task, shards: Sequence[int], tick: Tick, hear: Hear) -> None:
    """See ``Crew``: all of ``shards`` by these ``hands``, of which each is stopped and buried at the end."""
    events, waiting = Queue(), Waiting()
    for shard in shards:
        waiting.put(shard)
    threads = [Thread(target=_serve, args=(hand, task, waiting, events), daemon=True) for hand in hands]
    try:
        for thread in threads:
            thread.start()
        _listen(events, len(shards), hands, tick, hear)
    finally:
        for hand in hands:
            hand.stop()
            waiting.put(None)
        for thread in threads:
            thread.join()
        for hand in hands:
            hand.bury()


def _listen(events: Queue, shards: int, hands: Sequence[Stoppable], tick: Tick, hear: Hear) -> None:
    """Until all is settled. Of hands that find no room, one at least must stay."""
    patience, stay = Patience(), len(hands)
    while shards:
        event = _next(events)
        if event is None:
            tick(0)  # nothing is done, and how far it is may be said all the same
        else:
            patience.hear(event)
            if event.what == "begun":
                continue
            if event.what == "done":
                tick(event.passages)
            hear(event)
            shards -= event.what in ("done", "bad")
            stay -= event.what == "left"
            if not stay:
                raise CoreInferError(event.why)
        for worker, shard, taken, usual in patience.late():
            hear(Event("slow", worker, shard, why=_slow(hands[worker], shard, taken, usual)))


def _next(events: Queue) -> Event | None:
    """None where nothing happens for a while."""
    try:
        event = events.get(timeout=EVERY)
    except Empty:
        return None
    if isinstance(event, BaseException):
        raise event
    return event


def _slow(hand: Stoppable, shard: int, taken: float, usual: float) -> str:
    return (
        f"{hand.name} has been at shard {shard} for {lasting(taken)}, others take {lasting(usual)}: kill it, and its "
        "shard is done by another"
    )


def _serve(hand: Hand, task: Task, waiting: Waiting, events: Queue) -> None:
    """Shard after shard; ``events`` gets what becomes of each, or why there will be no more. It waits until the end:
    another hand may give a shard back.
    """
    try:
        events.put(Event("started", hand.number))
        while (shard := waiting.get()) is not None and not hand.stopped:
            events.put(Event("begun", hand.number, shard))
            try:
                settle(hand, task, shard, events.put)
            except Left as left:
                waiting.put(shard)
                events.put(Event("left", hand.number, shard, why=str(left)))
                return
    except BaseException as error:
        events.put(error)
