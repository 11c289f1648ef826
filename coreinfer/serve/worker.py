"""The one thread that owns the language model: it takes orders between steps, prefills, fills slots and decodes."""

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from coreinfer.decode.decoder import Decoder
from coreinfer.decode.seats import Table
from coreinfer.errors import CoreInferError
from coreinfer.serve.asks import Ask
from coreinfer.serve.faults import Refused
from coreinfer.serve.jobs import Job
from coreinfer.serve.joining import choose
from coreinfer.serve.limits import Limits
from coreinfer.serve.matching import Matching, is_matched
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.preparing import Preparing, Prompted, seated
from coreinfer.serve.running import Pick, Running
from coreinfer.serve.texts import Text
from coreinfer.serve.versions import Version

log = logging.getLogger("coreinfer.serve")
AHEAD = 2  # times the slots: texts that are prefilled before they have one, so that like ones meet


class Worker(threading.Thread):
    """``submit`` and ``ask`` may be called from any thread, the rest is this one's.

    ``flush``: called when what was told may be handed over; ``failed``: when the thread ended for a ``fault`` of ours.
    """

    def __init__(
        self, version: Version, decoder: Decoder, ends: frozenset[int], limits: Limits, metrics: Metrics,
        flush: Callable[[], Any] = lambda: None, pick: Pick = choose, failed: Callable[[], Any] = lambda: None,
    ) -> None:  # fmt: skip
        super().__init__(name="coreinfer-engine", daemon=True)
        self.limits, self.metrics, self.flush, self.failed = limits, metrics, flush, failed
        self.running = Running(Table(decoder), ends, metrics, flush, pick)
        self.preparing = Preparing(version, limits.context, ends, metrics)
        self.matching = Matching(apart=not decoder.on_gpu)
        self.fault: BaseException | None = None
        self._inbox: queue.SimpleQueue[Job | Ask | None] = queue.SimpleQueue()
        self._arrived, self._asks, self._ready = deque[Prompted](), deque[Ask](), list[Text]()
        self._lock, self._waiting, self._ending, self._closed = threading.Lock(), 0, False, False

    @property
    def version(self) -> Version:
        """Which new requests are answered with."""
        return self.preparing.version

    @property
    def idle(self) -> bool:
        return not (self._arrived or self._asks or self._ready or self.running.groups)

    def submit(self, job: Job) -> None:
        """
        Raises:
            Refused: as many texts wait as may, or the request has more than ever may.
        """
        texts, most = len(job.prompts) * job.n, self.limits.queue + self.limits.batch
        if texts > most:
            raise Refused(400, f"the request is for {texts} texts, {most} fit here: ask for fewer at a time", "n")
        self._admit(job, texts)

    def ask(self, parts: Sequence[Callable[[], Any]], deadline: float) -> "Future[list[Any]]":
        """Run these in the engine's thread, one a turn.

        Raises:
            Refused: as many wait as may.
        """
        made = Ask(deque(parts), deadline)
        self._admit(made, 1)
        return made.result

    def _admit(self, order: Job | Ask, places: int) -> None:
        with self._lock:
            if self._closed:
                raise Refused(503, "the engine has stopped: start the server again")
            if self._waiting + places > self.limits.queue + self.running.free:
                raise Refused(503, f"{self._waiting} texts wait already, of {self.limits.queue} that may: come again")
            if isinstance(order, Job):
                self.matching.begin(order, lambda: (order.by or self.preparing).version.engine)
            self._waiting += places
            self.metrics.queue.set(self._waiting)
            self._inbox.put(order)

    def swap(self, version: Version) -> None:
        """Requests whose first prompt is prefilled from now on are answered with this one."""
        old = self.preparing
        self.preparing = Preparing(version, old.context, old.ends, old.metrics)

    def end(self) -> None:
        """Stop after the turn that runs."""
        self._inbox.put(None)

    def run(self) -> None:
        why: BaseException = Refused(503, "the server is shutting down: come again")
        try:
            while not self._ending:
                self.turn()
        except BaseException as error:  # whoever waits shall know, and whoever comes
            log.critical("the engine's thread failed", exc_info=True)
            self.fault = why = error
        self._close(why)

    def turn(self) -> None:
        """Hear what came in, answer one ask, prefill, fill slots, and let a group decode."""
        self._orders()
        self._purge()
        self.running.release()
        if self._arrived or self._asks or len(self.running.groups) > 1:
            self.running.say()  # what holds texts up does not hold back what they made
        self._answer()
        self._prepare()
        self._fill()
        if self.running.groups:
            self._decode()
        self.metrics.busy.set(len(self.running.texts))
        self.flush()

    def _close(self, why: BaseException) -> None:
        with self._lock:
            self._closed = True
        self.matching.end()
        self._orders(wait=False)
        texts = [*self._ready, *self.running.clear()]
        for job in {*(one.job for one in self._arrived), *(text.job for text in texts)}:
            job.fail(why)
        for ask in self._asks:
            ask.fail(why)
        self.flush()
        if self.fault is not None:
            self.failed()

    def _decode(self) -> None:
        try:
            known = self._next_is_matched
            self.running.run(lambda: bool(self.running.free) and self._news(known))
        except Exception as error:  # whatever a step raises, the next texts find a server that works
            log.exception("a step failed")
            for text in self.running.clear():
                text.job.fail(error)

    def _orders(self, wait: bool = True) -> None:
        """What came in; without anything to do, wait for it."""
        wait = wait and self.idle
        while wait or not self._inbox.empty():
            order, wait = self._inbox.get(), False
            if order is None:
                self._ending = True
            elif isinstance(order, Ask):
                self._asks.append(order)
            else:
                self._arrived.extend(Prompted(order, number) for number in range(len(order.prompts)))

    def _purge(self) -> None:
        """Those who left, and those whose time is over, make room for others."""
        late = Refused(503, f"it was not begun within {self.limits.seconds:g} s: come again")
        for ask in self._asks:
            if ask.late and not ask.gone:
                ask.fail(late)
        for one in self._arrived:
            if one.job.late:
                one.job.fail(late)
        left = {one.job for one in self._arrived if one.job.gone}  # looked at once: it is the event loop that sets it
        asks = deque(ask for ask in self._asks if not ask.result.done())
        self._unwait(len(self._asks) - len(asks) + sum(one.job.n for one in self._arrived if one.job in left))
        self._asks, self._arrived = asks, deque(one for one in self._arrived if one.job not in left)

    def _answer(self) -> None:
        """A part of one ask; then it is another's turn."""
        if not self._asks:
            return
        ask = self._asks.popleft()
        if ask.gone or ask.go_on():
            self._unwait(1)
        else:
            self._asks.append(ask)

    def _news(self, known: bool) -> bool:
        """Whether something came in, or the next prompt was matched, which was not ``known``."""
        return not self._inbox.empty() or (not known and self._next_is_matched)

    @property
    def _next_is_matched(self) -> bool:
        """Whether there is a next prompt, and it is matched."""
        return bool(self._arrived) and is_matched(self._arrived[0].job, self._arrived[0].number)

    def _prepare(self) -> None:
        """Prefill one prompt; while no more than half of the slots are taken, as many as are free, also of those that
        come meanwhile: a step takes hardly longer for eight texts than for one, so a burst had better decode together.
        Texts that have a slot decode until the prompt is matched.
        """
        few = 2 * len(self.running.texts) <= self.limits.batch
        for _ in range(max(1, self.running.free - len(self._ready)) if few else 1):
            if not self._arrived or len(self._ready) - self.running.free >= AHEAD * self.limits.batch:
                return
            if self.running.groups and not self._next_is_matched:
                return
            one = self._arrived.popleft()
            made = [] if one.job.gone else self._prefill(one)
            self._unwait(one.job.n - len(made))
            self._ready += made
            self.flush()
            self._orders(wait=False)

    def _prefill(self, one: Prompted) -> list[Text]:
        job = one.job
        job.by = job.by or self.preparing  # all of a request is of one artifact
        try:
            made: list[Text] = job.by.texts(one)
            return made
        except Exception as error:
            if not isinstance(error, CoreInferError | Refused):
                log.exception("a prefill failed")
            job.fail(error)
            return []

    def _fill(self) -> None:
        before, waiting = len(self._ready), list[Text]()
        for text in self._ready:
            if text.job.late and not text.job.gone:
                text.cut("time")
            elif not text.job.gone:
                waiting.append(text)
        self.running.fill(waiting, lambda text: seated(self.running.table, text))
        self._ready = waiting
        self._unwait(before - len(waiting))

    def _unwait(self, texts: int) -> None:
        with self._lock:
            self._waiting -= texts
            self.metrics.queue.set(self._waiting)
