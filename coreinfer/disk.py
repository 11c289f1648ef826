"""The few calls on which it depends that a file is whole: write, flush, rename. Who looks for faults of a disk, or
makes some, has one place for it.
"""

import ctypes
import errno
import os
from functools import cache
from io import FileIO
from pathlib import Path
from typing import Any

# What systems say of a drive that has no hard links, or allows no more of them; EINVAL is Windows's word.
NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
# What Linux says where it cannot exchange two names: an old kernel, a file system that does not know how.
NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}
HERE, EXCHANGE = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: renameat2(2)


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


def exchange(one: Path, other: Path) -> bool:
    """Let each have the other's name, in one step: at no moment has one of the names nothing. Whether that can be here.

    Raises:
        OSError: the disk refuses.
    """
    if (call := _renameat2()) is None:
        return False
    if call(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0:
        return True
    if (fault := ctypes.get_errno()) in NO_EXCHANGE:
        return False
    raise OSError(fault, os.strerror(fault), str(one), None, str(other))


@cache
def _renameat2() -> Any:
    """Linux's, from the C library; None elsewhere."""
    try:
        call = ctypes.CDLL("libc.so.6", use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    return call


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
