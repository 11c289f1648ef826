"""What a caller sees of a long job: its stages as they begin, and the seconds that each took."""

import time
from collections.abc import Callable
from typing import Any

from coreinfer.progress import Stage


class Stopwatch:
    """Times stages, one after another."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.seconds, self._last = stage, dict[str, float](), ("", 0.0)

    def start(self, name: str, total: int | None = None) -> Callable[[int], Any]:
        self.time(name)
        return self.stage(name, total)

    def show(self, name: str) -> None:
        """Start one that does its work in one piece, so that no tick would come before its end."""
        self.start(name)(0)

    def time(self, name: str) -> None:
        """Start one that shows stages of its own."""
        self.stop()
        self._last = (name, time.perf_counter())

    def stop(self) -> None:
        if self._last[0]:
            self.seconds[self._last[0]] = round(time.perf_counter() - self._last[1], 3)
        self._last = ("", 0.0)
