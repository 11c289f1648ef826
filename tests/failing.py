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


class Faults:
    """Counts the calls that change what is on the disk, and makes one of them go wrong."""

    def __init__(self, fault: str, at: float) -> None:
        self.fault, self.at, self.calls = fault, at, 0
        self.unsynced = set[Path]()

    def install(self) -> None:
        """In place of the calls themselves."""
        self._wrap(disk, "put", self._half)
        for owner, name in (
            (disk, "sync"), (disk, "rename"), (disk, "exchange"), (disk, "replace"), (disk, "keep_first"),
            (work, "write_vectors"), (Path, "write_text"), (Path, "write_bytes"), (pq.ParquetWriter, "write_table"),
            (shutil, "copyfile"),
        ):  # fmt: skip
            self._wrap(owner, name, lambda call, *given: None)
        put, sync = disk.put, disk.sync

        def noted(file: FileIO, data: memoryview) -> int:
            self.unsynced.add(Path(str(file.name)))
            return put(file, data)

        def flushed(path: Path) -> None:
            sync(path)
            self.unsynced.discard(path)

        disk.put, disk.sync = noted, flushed

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
