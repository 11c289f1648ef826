"""Small things that need the models, beside the texts: they wait in the same queue, and are done a part a turn."""

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Ask:
    """``result``: what each of its parts came to; who wants it no more cancels that."""

    parts: deque[Callable[[], Any]]
    deadline: float
    result: "Future[list[Any]]" = field(default_factory=Future)
    made: list[Any] = field(default_factory=list)

    @property
    def gone(self) -> bool:
        return self.result.cancelled()

    @property
    def late(self) -> bool:
        return time.monotonic() > self.deadline

    def go_on(self) -> bool:
        """Do the next part; whether it was the last."""
        try:
            self.made.append(self.parts.popleft()())
        except Exception as error:  # it is told to who asked
            self.fail(error)
            return True
        if not self.parts and self.result.set_running_or_notify_cancel():
            self.result.set_result(self.made)
        return not self.parts

    def fail(self, error: BaseException) -> None:
        if self.result.set_running_or_notify_cancel():
            self.result.set_exception(error)
