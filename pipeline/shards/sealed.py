"""Files that are whole or not there: written under another name, flushed, renamed, and with a checksum at their end.

The checksum is the SHA-256 of a key and of the content. So a damaged file, and a file of other settings that came to
lie here, are both found out before a byte of them is used; and a .npy file with a seal is still a .npy file.
"""

import errno
import hashlib
import os
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer import disk
from coreinfer.errors import CoreInferError

SEAL = hashlib.sha256().digest_size
PIECE = 1 << 24  # bytes hashed and written at a time


def begin(path: Path, content: Iterable[bytes | memoryview]) -> None:
    """Write ``path`` unless it is there, which another machine may see to in the same moment: the first one's stays.

    Raises:
        OSError: the disk refuses.
    """
    write_whole(path, content, first=True)


def write_whole(path: Path, content: Iterable[bytes | memoryview], first: bool = False) -> None:
    """Write ``path``; it appears when all of it is on the disk. What was there is replaced then, unless ``first``.

    Raises:
        OSError: the disk refuses; what was there stays.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.part")
    try:
        with part.open("xb", buffering=0) as file:
            for data in content:
                _put_all(file, memoryview(data).cast("B"))
        disk.sync(part)
        (disk.keep_first if first else disk.replace)(part, path)
        disk.sync(path.parent)
    finally:
        with suppress(OSError):
            part.unlink()


def _put_all(file: FileIO, data: memoryview) -> None:
    while data:
        if not (taken := disk.put(file, data[:PIECE])):
            raise OSError(errno.EIO, "the disk takes no more bytes")
        data = data[taken:]


def write_sealed(path: Path, key: str, content: Iterable[bytes | memoryview], first: bool = False) -> None:
    """The same, and a seal at its end."""
    write_whole(path, _with_seal(key, content), first)


def _with_seal(key: str, content: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    digest = hashlib.sha256(key.encode())
    for data in content:
        digest.update(data)
        yield data
    yield digest.digest()


def open_sealed(path: Path, key: str) -> NDArray[np.uint8] | None:
    """The content as a memory map of bytes, its checksum found to be right; None where it is not, or no file is.

    Raises:
        CoreInferError: it cannot be read.
    """
    try:
        facts = path.stat()
        if stat.S_ISDIR(facts.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if facts.st_size < SEAL:
            return None
        raw: NDArray[np.uint8] = np.memmap(path, np.uint8, "r")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(path, error) from error
    digest = hashlib.sha256(key.encode())
    for at in range(0, len(raw) - SEAL, PIECE):
        digest.update(raw[at : min(at + PIECE, len(raw) - SEAL)].data)
    return raw[:-SEAL] if digest.digest() == raw[-SEAL:].tobytes() else None


def unreadable(path: Path, error: OSError) -> CoreInferError:
    """What to do about a part that is there and cannot be read."""
    return CoreInferError(
        f"cannot read {path}: {error.strerror or error}; remove it, and run this again to make it anew"
    )


def as_bytes(array: NDArray[Any]) -> memoryview:
    """An array's content, not copied where it lies in one piece."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
