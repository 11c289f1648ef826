"""Places on disk as users name them: why one cannot be written, and where a local model lies."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coreinfer.errors import CoreInferError

FULL = (errno.ENOSPC, errno.EDQUOT)


def absolute(name: str | None, default: str) -> str:
    """A local file or folder by its absolute path, for whoever looks it up elsewhere; a Hub name stays itself."""
    if name is None or name == default:
        return default
    path = Path(name).expanduser()
    return os.path.abspath(path) if path.exists() else name


@contextmanager
def writing(path: Path, remedy: str) -> Iterator[None]:
    """Any fault of the disk below becomes one line: what is in the way of ``path``, and the remedy."""
    try:
        yield
    except OSError as error:
        room = "free some space or " if error.errno in FULL else ""
        raise CoreInferError(f"cannot write {path}: {_fault(path, error)}; {room}{remedy}") from error


@contextmanager
def moved_in(path: Path) -> Iterator[Path]:
    """A place beside ``path`` to write to, which becomes ``path`` at the end: no reader ever sees half of a file."""
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


def check_place(path: Path, remedy: str) -> None:
    """Refuse a place that cannot be written before any work is done; nothing is made there.

    Raises:
        CoreInferError: a file on the way to it, no right to write there, or a name that the system does not take.
    """
    with writing(path, remedy):
        path.exists()
        there = next(folder for folder in path.absolute().parents if folder.exists())
        fault = errno.ENOTDIR if not there.is_dir() else 0 if os.access(there, os.W_OK) else errno.EACCES
        if fault:
            raise OSError(fault, os.strerror(fault))


def check_file(path: Path, remedy: str) -> None:
    """The same for a file, whose folder must be there."""
    check_place(path, remedy)
    with writing(path, remedy):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.parent.exists():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _fault(path: Path, error: OSError) -> str:
    """The system's words, or the file on the way to ``path`` that is no folder."""
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        blocking = [folder for folder in path.parents if folder.exists() and not folder.is_dir()]
        if blocking:
            return f"{blocking[0]} is a file, no folder"
    return error.strerror or str(error)
