"""What a caller sees of a long job: its stages as they begin, and what each took in time and memory."""

import os
import time
from contextlib import suppress
from pathlib import Path

from coreinfer.progress import Gauge, Stage

Usage = dict[str, float | None]
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Stopwatch:
    """Measures stages, one after another.

    Attributes:
        seconds: what each took by the clock.
        processor: processor seconds of each, of all threads, and of those worker processes that ended in it.
        peak: the most bytes of this process that were in memory during each; None where the system does not say.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage, self._last = stage, ""
        self.seconds, self.processor, self.peak = dict[str, float](), dict[str, float](), dict[str, int | None]()
        self._began, self._worked = 0.0, 0.0

    def start(self, name: str, total: int | None = None) -> Gauge:
        self.time(name)
        return self.stage(name, total)

    def show(self, name: str) -> None:
        """Start one that does its work in one piece, so that no tick would come before its end."""
        self.start(name)(0)

    def time(self, name: str) -> None:
        """Start one that shows stages of its own."""
        self.stop()
        with suppress(OSError):  # not Linux
            CLEAR.write_text("5")  # the kernel's own peak begins anew (proc(5))
        self._last, self._began, self._worked = name, time.perf_counter(), _processor_seconds()

    def stop(self) -> None:
        if self._last:
            self.seconds[self._last] = round(time.perf_counter() - self._began, 3)
            self.processor[self._last] = round(_processor_seconds() - self._worked, 3)
            self.peak[self._last] = _peak()
        self._last = ""

    @property
    def usage(self) -> dict[str, Usage]:
        """All of it by stage, for programs."""
        return {
            name: {"seconds": seconds, "processor_seconds": self.processor[name], "peak_bytes": self.peak[name]}
            for name, seconds in self.seconds.items()
        }


def _processor_seconds() -> float:
    return sum(os.times()[:4])


def _peak() -> int | None:
    """The most bytes in memory since the kernel's peak began anew; None where it is not known."""
    with suppress(OSError):
        lines = STATUS.read_text("ascii").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))
    return None
