"""Time to the first token and the rest, seen from where ``generate`` streams."""

import time
from typing import Any


class Clock:
    """A streamer that times the first token and the rest, and hands everything on to another streamer."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.times, self.begun = inner, [0.0], 0.0

    def start(self) -> None:
        self.begun, self.times = time.perf_counter(), []

    def put(self, value: Any) -> None:
        self.times.append(time.perf_counter())
        if self.inner is not None:
            self.inner.put(value)

    def end(self) -> None:
        if self.inner is not None:
            self.inner.end()

    @property
    def first_s(self) -> float:
        """To the first new token; ``generate`` puts the prompt itself first."""
        return self.times[1] - self.begun if len(self.times) > 1 else 0.0

    @property
    def rest_s(self) -> float:
        return self.times[-1] - self.times[1] if len(self.times) > 1 else 0.0
