"""A file of an artifact: looked at before it is hashed, whether it is the folder's own and all of it there; and what is
known of it after that.
"""

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from coreinfer.errors import CoreInferError

MOST_HOLES = 1 << 20  # bytes; whoever copies a file may leave out a page of zeros here and there


class Stamp(NamedTuple):
    """What changes when a file is replaced or written to."""

    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "Stamp":
        return cls(facts.st_ino, facts.st_mtime_ns, facts.st_size)


class Content(NamedTuple):
    """A small file: the very bytes that were hashed, whatever has its name by now."""

    name: str
    raw: bytes


def check_own(path: Path) -> None:
    """Refuse what leads out of the folder, or never ends: a link, a device, a pipe, a folder. Only of a snapshot in the
    Hugging Face Hub's cache the files are links, into that model's own blobs.

    Raises:
        CoreInferError: it is one.
        OSError: it cannot be looked at.
    """
    if stat.S_ISREG(path.lstat().st_mode):
        return
    if not path.is_symlink():
        raise CoreInferError(f"{path} is no plain file: copy the artifact again")
    if not _in_hub_cache(path):
        raise CoreInferError(
            f"{path} is a link, and leads out of the artifact: copy the artifact again, with `cp -rL` if it holds links"
        )


def _in_hub_cache(link: Path) -> bool:
    """Whether it is ``REPOSITORY/snapshots/REVISION/.../file`` and ends at a plain file in ``REPOSITORY/blobs``."""
    target = Path(os.path.realpath(link))
    snapshots = [folder for folder in link.parent.resolve().parents if folder.name == "snapshots"]
    return any(folder.parent / "blobs" == target.parent for folder in snapshots) and target.is_file()


def check_written(path: Path) -> None:
    """Refuse a file with holes: zeros that were never written. A few bytes on a disk can make hours of them for whoever
    takes their hash; honest ones come from a download that broke off.

    Raises:
        CoreInferError: more than ``MOST_HOLES`` bytes of it are.
        OSError: it cannot be opened.
    """
    if _holes(path) > MOST_HOLES:
        raise CoreInferError(
            f"{path} has {path.stat().st_size:,} bytes, but not all of them were ever written: copy the artifact again"
        )


def _holes(path: Path) -> int:
    """Bytes of holes, as far as the system tells; counted until they are too many."""
    if not hasattr(os, "SEEK_HOLE"):  # Windows
        return 0
    holes = end = 0
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        while end < size and holes <= MOST_HOLES:
            start = file.seek(end, os.SEEK_HOLE)
            end = _data_after(file.fileno(), start, size)
            holes += end - start
    return holes


def _data_after(handle: int, start: int, size: int) -> int:
    """Where a hole ends that begins at ``start``, which may be the end of the file."""
    try:
        return os.lseek(handle, start, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:  # nothing but a hole follows
            raise
        return size
