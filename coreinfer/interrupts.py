"""Ctrl-C that arrives: Python's own exception can be swallowed, by an extension being imported or a destructor.

So a KeyboardInterrupt is raised again and again until one comes through to ``ending``. Code that cleans up because of
it (``finally``, ``with``) is left alone: a half-removed folder is worse than a moment's wait.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN = 0.2  # seconds until the next try


class _Interrupts:
    """Whether Ctrl-C was pressed and has not arrived yet."""

    pressed = False

    def press(self, _number: int, _frame: FrameType | None) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        self.strike()

    def strike(self, *_: Any) -> None:
        self.pressed = True
        if not _cleaning_up(sys.exception()):
            raise KeyboardInterrupt

    def stop(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _cleaning_up(error: BaseException | None) -> bool:
    """Whether an error that is being handled is a KeyboardInterrupt, or came up while one was."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _unraisable(what: Any) -> None:
    """A destructor's KeyboardInterrupt comes again: no need for a traceback."""
    if not isinstance(what.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(what)


@contextmanager
def arriving() -> Iterator[None]:
    """Inside, Ctrl-C ends in a KeyboardInterrupt, also where something swallowed the first or made an error of it."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as in a shell's background jobs
        yield
        return
    state, hook = _Interrupts(), sys.unraisablehook
    alarm = getattr(signal, "SIGALRM", signal.SIGINT)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, alarm)}
    sys.unraisablehook = _unraisable
    signal.signal(alarm, state.strike)
    signal.signal(signal.SIGINT, state.press)
    try:
        yield
    except Exception:
        state.stop()
        if state.pressed:
            raise KeyboardInterrupt from None
        raise
    finally:
        state.stop()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
