"""Places on disk as users name them: why one cannot be written, and where a local model lies."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coreinfer import disk
from coreinfer.errors import CoreInferError

FULL = (errno.ENOSPC, errno.EDQUOT)
REPLACED = "replaced"  # what stood in the place of a new folder, until that has it, where they cannot be exchanged


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
        disk.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()


@contextmanager
def used_folder(folder: Path) -> Iterator[None]:
    """A folder that is there, made with those above it if need be; what was made goes again if nothing came into it."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for each in missing:
            disk.sync(each.parent)
        yield
    finally:
        for each in missing:  # innermost first
            with suppress(OSError):  # it holds something
                each.rmdir()


@contextmanager
def folder_moved_in(path: Path, replacing: bool = True) -> Iterator[tuple[Path, Path]]:
    """Two folders beside ``path``: the first becomes ``path`` at the end, all of it on the disk; the second is scratch.

    On failure what was there is there again, and nothing else that was made here. Without ``replacing``, a folder with
    something in it that came to ``path`` meanwhile is such a failure.
    """
    with used_folder(path.parent):
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            made, scratch = work / "made", work / "scratch"
            made.mkdir()
            scratch.mkdir()
            yield made, scratch
            for file in [*made.iterdir(), made]:
                disk.sync(file)
            _put(made, path, work / REPLACED, replacing)
        finally:
            _put_back(work / REPLACED, path)
            shutil.rmtree(work, ignore_errors=True)


def _put(made: Path, path: Path, replaced: Path, replacing: bool) -> None:
    """Give ``made`` the name ``path``, and have that on the disk; what had the name goes to the name of either."""
    there = replacing and path.exists()
    if there and disk.exchange(made, path):
        try:
            disk.sync(path.parent)
        except BaseException:
            disk.exchange(made, path)
            raise
        return
    if there:
        disk.rename(path, replaced)
    disk.rename(made, path)
    disk.sync(path.parent)


def _put_back(replaced: Path, path: Path) -> None:
    """If what was there was moved away and nothing new took its place, return it."""
    if replaced.exists() and not path.exists():
        replaced.rename(path)


def swept(path: Path) -> None:
    """Remove what a killed ``folder_moved_in`` left beside ``path``; what it had moved away returns. Only for whoever
    knows that no other process writes there.
    """
    # As mkdtemp makes them; not those of ``path.other``.
    name = re.compile(re.escape(f".{path.name}.") + r"[a-z0-9_]{8}\.part")
    for work in path.parent.iterdir():
        if name.fullmatch(work.name) and work.is_dir():
            _put_back(work / REPLACED, path)
            shutil.rmtree(work, ignore_errors=True)


def check_place(path: Path, remedy: str) -> None:
    """Refuse a place for a folder that cannot be written before any work is done; nothing is made there.

    Raises:
        CoreInferError: a file on the way to it, a link that leads nowhere, no right to write there, or a name that the
            system does not take.
    """
    with writing(path, remedy):
        if _leads_nowhere(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        _check_way(path)


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def _check_way(path: Path) -> None:
    path.exists()
    there = next(folder for folder in path.absolute().parents if folder.exists() or folder.is_symlink())
    fault = errno.ENOTDIR if not there.is_dir() else 0 if os.access(there, os.W_OK) else errno.EACCES
    if fault:
        raise OSError(fault, os.strerror(fault))


def check_file(path: Path, remedy: str) -> None:
    """The same for a file, whose folder must be there; in the place of a link it may come."""
    with writing(path, remedy):
        _check_way(path)
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not path.parent.exists():
            raise FileNotFoundError(errno.ENOENT, f"there is no folder {path.parent}")
        if path.exists() and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _fault(path: Path, error: OSError) -> str:
    """The system's words, or the file or link on the way to ``path`` that is no folder."""
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        if lost := [place for place in (path, *path.parents) if _leads_nowhere(place)]:
            return f"{lost[0]} is a link that leads nowhere"
        if blocking := [folder for folder in path.parents if folder.exists() and not folder.is_dir()]:
            return f"{blocking[0]} is a file, no folder"
    return error.strerror or str(error)
