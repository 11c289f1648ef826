"""A place that one process at a time works in: a locked file beside it, which the system frees when its owner dies.

Where the system has no such locks (Windows, some network drives), nothing is claimed and nobody is refused.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class Busy(Exception):
    """Another process has it."""


def raise_busy() -> None:
    """What to call where another has it, rather than to wait."""
    raise Busy


def lock_of(path: Path) -> Path:
    """The file whose lock is the claim on ``path``."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def claimed(path: Path, busy: Callable[[], Any]) -> Iterator[bool]:
    """Inside, ``path`` is this process's; yields whether that is so, which it is not where nothing can be locked. While
    another has it, ``busy`` is called, once: it raises, or it returns, and then this waits.
    """
    handle = _locked(lock_of(path), busy)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            with suppress(OSError):
                lock_of(path).unlink()  # while it is ours: who waits for it looks again
            os.close(handle)


@contextmanager
def used(folder: Path) -> Iterator[None]:
    """Inside, others see that ``folder`` is used, by any number of processes at a time."""
    with _sign_of(folder) as handle:
        if handle is not None:
            with suppress(OSError):  # a drive without locks
                fcntl.flock(handle, fcntl.LOCK_SH)
        yield


@contextmanager
def unused(folder: Path) -> Iterator[bool]:
    """Whether nobody uses a folder, nor will inside, as far as the system can tell."""
    with _sign_of(folder) as handle:
        yield handle is not None and _taken(handle, wait=False) is True


@contextmanager
def _sign_of(folder: Path) -> Iterator[int | None]:
    """The file in it whose lock all can have who use it, open; None where the system has no locks."""
    if fcntl is None:
        yield None
        return
    handle = os.open(folder / ".used.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        yield handle
    finally:
        os.close(handle)


def _locked(lock: Path, busy: Callable[[], Any]) -> int | None:
    """An open, locked file that has this name; None where the system cannot lock."""
    while fcntl is not None:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if (free := _taken(handle, wait=False)) is None:
                os.close(handle)
                return None
            if not free:
                busy()
                busy = _nothing
                _taken(handle, wait=True)
            if _is(handle, lock):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    return None


def _nothing() -> None:
    """It was said once."""


def _taken(handle: int, wait: bool) -> bool | None:
    """Whether it is locked now; None on a drive without locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _is(handle: int, lock: Path) -> bool:
    """Whether the file still has its name: whoever had the lock removed it with that."""
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except FileNotFoundError:
        return False
