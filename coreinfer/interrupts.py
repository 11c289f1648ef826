"""Ctrl-C, and a polite kill, that arrive: the exception of either can be swallowed, by an extension being imported, a
destructor or a library's callback.

So a KeyboardInterrupt, or a SystemExit, is raised again and again until one comes through to ``arriving``. Code that
cleans up because of it (``finally``, ``with``) is left alone: a half-removed folder is worse than a moment's wait.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

AGAIN = 0.2  # seconds until the next try


class _Interrupts:
    """What was pressed, if anything, and has not arrived yet."""

    pressed: int | None = None

    @property
    def error(self) -> BaseException:
        number = self.pressed or signal.SIGINT
        return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)

    def press(self, number: int, _frame: FrameType | None) -> None:
        self.pressed = number
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
        self.strike()

    def strike(self, *_: Any) -> None:
        if not _cleaning_up(sys.exception()):
            raise self.error

    def stop(self) -> None:
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _cleaning_up(error: BaseException | None) -> bool:
    """Whether an error that is being handled is one of these two, or came up while one was."""
    while error is not None and not isinstance(error, KeyboardInterrupt | SystemExit):
        error = error.__context__
    return error is not None


def _unraisable(what: Any) -> None:
    """What a destructor or a callback swallowed comes again: no need for a traceback."""
    if not isinstance(what.exc_value, KeyboardInterrupt | SystemExit):
        sys.__unraisablehook__(what)


@contextmanager
def arriving() -> Iterator[None]:
    """Inside, Ctrl-C ends in a KeyboardInterrupt and SIGTERM in a SystemExit, also where something swallowed the first
    or made an error of it. Ctrl-C that is ignored, as in a shell's background jobs, stays so, and so does SIGTERM that
    nobody handles.
    """
    ours = [signal.SIGINT] * (signal.getsignal(signal.SIGINT) is signal.default_int_handler)
    ours += [signal.SIGTERM] * callable(signal.getsignal(signal.SIGTERM))
    if not ours:
        yield
        return
    state, hook = _Interrupts(), sys.unraisablehook
    alarm = getattr(signal, "SIGALRM", signal.SIGINT)
    before = {number: signal.getsignal(number) for number in (*ours, alarm)}
    sys.unraisablehook = _unraisable
    signal.signal(alarm, state.strike)
    for number in ours:
        signal.signal(number, state.press)
    try:
        yield
    except Exception:
        state.stop()
        if state.pressed is not None:
            raise state.error from None
        raise
    finally:
        state.stop()
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)
