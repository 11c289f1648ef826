"""Time to the first token and the rest, seen from where ``generate`` streams."""

import time
from typing import Any


class Clock:
    """A streamer that times the first token and the rest, and hands everything on to another streamer.

    A generation may be several calls of ``generate``: the prompts of the later ones are what was streamed already.
    """

    def __init__(self, inner: Any) -> None:
        self.inner, self.times = inner, [0.0]
        self._begun, self._known = 0.0, False

    def start(self) -> None:
        """Before each call; what a later one puts first is no news."""
        if self._begun:
            self._known = True
        else:
            self._begun, self.times = time.perf_counter(), []

    def put(self, value: Any) -> None:
        if self._known:
            self._known = False
            return
        self.times.append(time.perf_counter())
        if self.inner is not None:
            self.inner.put(value)

    def end(self) -> None:
        """``generate``'s word that a call is done; the text may go on."""

    def close(self) -> None:
        """After the last call."""
        if self.inner is not None:
            self.inner.end()

    @property
    def first_s(self) -> float:
        """To the first new token; ``generate`` puts the prompt itself first."""
        return self.times[1] - self._begun if len(self.times) > 1 else 0.0

    @property
    def rest_s(self) -> float:
        return self.times[-1] - self.times[1] if len(self.times) > 1 else 0.0
