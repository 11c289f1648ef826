"""Work that another thread does, in order, while its caller prepares the next: what a GPU made is added up while it
makes more.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Behind:
    """A context manager. One call at most is behind: the next one waits for it, and so does the end."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._last: Future[Any] | None = None

    def do(self, work: Callable[..., Any], *given: Any) -> None:
        """Have it done.

        Raises:
            whatever the call before raised; this one is not begun then.
        """
        self._wait()
        self._last = self._thread.submit(work, *given)

    def _wait(self) -> None:
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """What is behind is done, also where the caller failed; its own fault comes out unless the caller's does."""
        try:
            if kind is None:
                self._wait()
        finally:
            self._thread.shutdown()


class AtOnce:
    """The same without another thread: where all cores are busy already."""

    def do(self, work: Callable[..., Any], *given: Any) -> None:
        """Do it."""
        work(*given)

    def __enter__(self) -> "AtOnce":
        return self

    def __exit__(self, *_: object) -> None:
        pass
