"""The one thread that owns the models: it takes orders between steps, prefills, fills slots and decodes."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from coreinfer.decode.decoder import Decoder
from coreinfer.decode.seats import Table
from coreinfer.errors import CoreInferError
from coreinfer.serve.faults import Refused
from coreinfer.serve.jobs import Failed, Job
from coreinfer.serve.joining import choose
from coreinfer.serve.limits import Limits
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.preparing import Preparing, Prompted, seated
from coreinfer.serve.running import Pick, Running, Text
from coreinfer.serve.versions import Version

log = logging.getLogger("coreinfer.serve")
AHEAD = 2  # times the slots: texts that are prefilled before they have one, so that like ones meet
TOGETHER = 8  # prompts that are embedded at a time
T = TypeVar("T")


@dataclass
class Ask:
    """Something small that needs the models, between two turns."""

    work: Callable[[], Any]
    result: "Future[Any]"


class Worker(threading.Thread):
    """``submit`` and ``ask`` may be called from any thread, the rest is this one's.

    ``flush``: called when what was told may be handed over.
    """

    def __init__(
        self, version: Version, decoder: Decoder, ends: frozenset[int], limits: Limits, metrics: Metrics,
        flush: Callable[[], Any] = lambda: None, pick: Pick = choose,
    ) -> None:  # fmt: skip
        super().__init__(name="coreinfer-engine", daemon=True)
        self.limits, self.metrics, self.flush = limits, metrics, flush
        self.running = Running(Table(decoder), ends, metrics, flush, pick)
        self.preparing = Preparing(version, limits.context, ends, metrics)
        self._inbox: queue.SimpleQueue[Job | Ask | None] = queue.SimpleQueue()
        self._arrived, self._ready = deque[Prompted](), list[Text]()
        self._lock, self._waiting, self._ending = threading.Lock(), 0, False

    @property
    def version(self) -> Version:
        """Which new prompts are answered with."""
        return self.preparing.version

    @property
    def idle(self) -> bool:
        return not (self._arrived or self._ready or self.running.groups)

    def submit(self, job: Job) -> None:
        """
        Raises:
            Refused: as many texts wait as may.
        """
        texts = len(job.prompts) * job.n
        with self._lock:
            if self._waiting + texts > self.limits.queue + self.running.free:
                raise Refused(503, f"{self._waiting} texts wait already, of {self.limits.queue} that may: come again")
            self._waiting += texts
            self.metrics.queue.set(self._waiting)
        self._inbox.put(job)

    def ask(self, work: Callable[[], T]) -> "Future[T]":
        """Run this in the engine's thread."""
        made: Future[T] = Future()
        self._inbox.put(Ask(work, made))
        return made

    def swap(self, version: Version) -> None:
        """Prompts that are prefilled from now on are answered with this one; in the engine's thread."""
        old = self.preparing
        self.preparing = Preparing(version, old.context, old.ends, old.metrics)

    def end(self) -> None:
        """Stop after the turn that runs."""
        self._inbox.put(None)

    def run(self) -> None:
        while not self._ending:
            self._orders()
            self.running.release()
            self._prepare()
            self._fill()
            if self.running.groups:
                self._turn()
            self.metrics.busy.set(len(self.running.texts))
            self.flush()

    def _turn(self) -> None:
        try:
            self.running.run(lambda: not self._inbox.empty() and bool(self.running.free))
        except Exception as error:  # whatever a step raises, the next texts find a server that works
            log.exception("a step failed")
            for text in self.running.clear():
                text.job.gone = True
                text.job.tell(Failed(error))

    def _orders(self) -> None:
        """What came in; without anything to do, wait for it."""
        block = self.idle
        while block or not self._inbox.empty():
            order, block = self._inbox.get(), False
            if order is None:
                self._ending = True
            elif isinstance(order, Ask):
                self._answer(order)
            else:
                self._arrived.extend(Prompted(order, number) for number in range(len(order.prompts)))

    def _answer(self, ask: Ask) -> None:
        if not ask.result.set_running_or_notify_cancel():
            return
        try:
            ask.result.set_result(ask.work())
        except Exception as error:
            ask.result.set_exception(error)

    def _prepare(self) -> None:
        """Prefill while slots are free; while none is, one prompt a turn, up to so many."""
        while self._arrived:
            free = self.running.free - len(self._ready)
            if free <= 0 and len(self._ready) >= AHEAD * self.limits.batch:
                return
            some = [self._arrived.popleft() for _ in range(min(max(1, free), TOGETHER, len(self._arrived)))]
            self._prefill([one for one in some if self._wanted(one)])
            self.flush()
            if free <= 1:
                return

    def _wanted(self, one: Prompted) -> bool:
        """Whether someone still waits for it, and in time."""
        if one.job.late and not one.job.gone:
            seconds = self.limits.seconds
            self._fail(one.job, Refused(503, f"no slot was free for {seconds:g} s: come again"))
        if one.job.gone:
            self._unwait(one.job.n)
        return not one.job.gone

    def _prefill(self, some: list[Prompted]) -> None:
        try:
            matches = self.preparing.matches(some) if some else []
        except Exception as error:
            for one in some:
                self._unwait(one.job.n)
                self._fail(one.job, error)
            return
        for one, match in zip(some, matches, strict=True):
            try:
                made = self.preparing.texts(one, match)
            except Exception as error:
                made = []
                self._fail(one.job, error)
            self._unwait(one.job.n - len(made))
            self._ready += made
            self.running.release()  # several prefills may take a while

    def _fail(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, CoreInferError | Refused):
            log.error("a prefill failed", exc_info=error)
        if not job.gone:
            job.gone = True
            job.tell(Failed(error))

    def _fill(self) -> None:
        left = [text for text in self._ready if text.job.gone]
        self._ready = [text for text in self._ready if not text.job.gone]
        before = len(self._ready)
        self.running.fill(self._ready, lambda text: seated(self.running.table, text))
        self._unwait(len(left) + before - len(self._ready))

    def _unwait(self, texts: int) -> None:
        with self._lock:
            self._waiting -= texts
            self.metrics.queue.set(self._waiting)


def wait_idle(worker: Worker, seconds: float) -> bool:
    """Whether all texts were done within so long."""
    end = time.monotonic() + seconds
    while not worker.idle and time.monotonic() < end:
        time.sleep(0.01)
    return worker.idle
