"""A disk that fails, or a process that is killed, at one chosen call of those that change the disk."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from coreinfer import disk
from pipeline.shards import work

# What writes a file that is to stay, and which one.
WRITES: dict[tuple[Any, str], Callable[..., Any]] = {
    (disk, "put"): lambda file, data: file.name,
    (shutil, "copyfile"): lambda source, path: path,
    (Path, "write_text"): lambda path, *given: path,
    (Path, "write_bytes"): lambda path, data: path,
    (pq.ParquetWriter, "write_table"): lambda writer, *given: writer.where,
}


class Faults:
    """Counts the calls that change what is on the disk, and makes one of them go wrong."""

    def __init__(self, fault: str, at: float) -> None:
        self.fault, self.at, self.calls = fault, at, 0
        self.unsynced = set[Path]()

    def install(self) -> None:
        """In place of the calls themselves."""
        moves = ("rename", "exchange", "replace", "keep_first")
        for owner, name in (*WRITES, (disk, "sync"), *((disk, name) for name in moves), (work, "write_vectors")):
            self._wrap(owner, name, self._half if name == "put" else lambda call, *given: None)
        for (owner, name), place in WRITES.items():
            self._note(owner, name, before=lambda *given, place=place: self._written(Path(str(place(*given)))))
        self._note(disk, "sync", after=lambda path: self.unsynced.discard(path))
        for name in moves:
            self._note(disk, name, after=self._moved)

    def _note(
        self, owner: Any, name: str, before: Callable[..., Any] = lambda *given: None,
        after: Callable[..., Any] = lambda *given: None,
    ) -> None:  # fmt: skip
        call = getattr(owner, name)

        def noted(*given: Any, **more: Any) -> Any:
            before(*given)
            if (made := call(*given, **more)) is not False:  # a system that cannot exchange names
                after(*given)
            return made

        setattr(owner, name, noted)

    def _written(self, path: Path) -> None:
        if not path.is_relative_to("/proc"):
            self.unsynced.add(path)

    def _moved(self, old: Path, new: Path) -> None:
        """A name is on the disk at once; what was never flushed is as little there under it as before."""
        inside = {path for path in self.unsynced if path.is_relative_to(old)}
        self.unsynced = (self.unsynced - inside) | {new / path.relative_to(old) for path in inside}

    def _wrap(self, owner: Any, name: str, before: Callable[..., Any]) -> None:
        call = getattr(owner, name)

        def counted(*given: Any, **more: Any) -> Any:
            if str(given[0]).startswith("/proc/"):  # the stopwatch's word to the system: no disk takes it
                return call(*given, **more)
            self.calls += 1
            if self.calls < self.at or (self.calls > self.at and self.fault != "ENOSPC"):
                return call(*given, **more)
            if self.fault == "short":
                taken = before(call, *given)
                return call(*given, **more) if taken is None else taken
            if self.fault in ("kill", "torn"):
                before(call, *given)
                self._kill()
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)))

        setattr(owner, name, counted)

    def _half(self, call: Callable[..., int], file: FileIO, data: memoryview) -> int:
        return call(file, data[: max(1, len(data) // 2)])

    def _kill(self) -> None:
        """At once; of what was never flushed, torn loses the half, as a machine without power does."""
        for path in self.unsynced if self.fault == "torn" else ():
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
