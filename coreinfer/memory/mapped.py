"""A bundle's layers as pages of its files, one layer of them in memory at a time."""

import ctypes
import hashlib
import mmap
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from coreinfer.errors import CoreInferError
from coreinfer.memory.bundle import Shape, hashes, layer_file

M_MMAP_THRESHOLD, LARGE = -3, 1 << 20  # the parameter's number in malloc.h; bytes


class Mapped:
    """``layer(number)``: that layer (F, P, H), read when it is touched; the one asked for before leaves memory.

    A file's pages that leave are read again when they are touched: most often from the system's cache, which is not
    this process's memory and which the system takes back when it wants to.

    Raises:
        CoreInferError: a system that cannot let pages go.
    """

    def __init__(self, place: Path, shape: Shape) -> None:
        if not hasattr(mmap, "MADV_DONTNEED"):
            raise CoreInferError("a memory budget needs a system that lets pages go, such as Linux: leave out --memory")
        self.place, self.shape, self._hashes = place, shape, hashes(place)
        self._maps = [_map(layer_file(place, number)) for number in range(shape.layers)]
        self._known, self._here = [False] * shape.layers, -1

    def __len__(self) -> int:
        return self.shape.layers

    def layer(self, number: int) -> Tensor:
        """
        Raises:
            CoreInferError: it is not what was written there; that is looked at when it is first asked for.
        """
        if number != self._here:
            self.leave()
            self._here = number
            if number + 1 < len(self):
                self._maps[number + 1].madvise(mmap.MADV_WILLNEED)  # the disk reads while this one computes
        if not self._known[number]:
            self._check(number)
        return self._view(number)

    def leave(self) -> None:
        """No layer is in memory."""
        if self._here >= 0:
            self._maps[self._here].madvise(mmap.MADV_DONTNEED)
        self._here = -1

    def _view(self, number: int) -> Tensor:
        s, pages = self.shape, self._maps[number]
        flat = torch.frombuffer(pages, dtype=s.torch_dtype, offset=len(pages) - s.layer_bytes)  # after the header
        return flat.view(s.width, s.parts, s.hidden)

    def _check(self, number: int) -> None:
        digest = hashlib.sha256(memoryview(self._maps[number])[-self.shape.layer_bytes :]).hexdigest()
        if digest != self._hashes[number]:
            raise CoreInferError(
                f"{layer_file(self.place, number)} is not what was written there: delete {self.place}, and the next "
                "run makes it again"
            )
        self._known[number] = True


def _map(path: Path) -> mmap.mmap:
    """Private pages: torch wants writable memory, and nothing that is written there would reach the file."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def return_what_is_freed() -> None:
    """Let glibc give large blocks back to the system as they are freed: of itself it keeps ever larger ones.

    See mallopt(3), M_MMAP_THRESHOLD, which grows to 32 MiB unless it is set. Other allocators have no such call.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE)
