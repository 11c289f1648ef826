"""The few calls on which it depends that a file is whole: write, flush, rename. Who looks for faults of a disk, or
makes some, has one place for it.
"""

import errno
import os
from io import FileIO
from pathlib import Path

# What systems say of a drive that has no hard links, or allows no more of them; EINVAL is Windows's word.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def put(file: FileIO, data: memoryview) -> int:
    """Hand bytes to the system; returns how many it took, which may be fewer."""
    return int(file.write(data) or 0)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def rename(old: Path, new: Path) -> None:
    """Give a folder its name; one that has something in it is never replaced."""
    old.rename(new)


def replace(old: Path, new: Path) -> None:
    """Give a file its name, in one step also where another has it."""
    os.replace(old, new)


def keep_first(old: Path, new: Path) -> None:
    """Give a file its name, unless another has it. A drive without links cannot tell: there the last one has it.

    Raises:
        OSError: the disk refuses.
    """
    try:
        os.link(old, new)
    except FileExistsError:
        return
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        os.replace(old, new)
