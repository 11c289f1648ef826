"""Finished batches on disk, so that an interrupted run goes on where it was: a JSON line for each.

The file's name is a hash of everything that decides the numbers: another run never takes them up. A line that was cut
off by the interruption is dropped. Floats survive JSON exactly, so a resumed run gives the same bytes.
"""

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

Batch = dict[str, Any]


def key_of(facts: dict[str, Any]) -> str:
    """A hash of what decides the numbers."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


class Partial:
    """The finished batches of one run, by number; in ``folder/.partial``, until ``forget``."""

    def __init__(self, folder: Path, key: str) -> None:
        self.path = folder / ".partial" / f"{key[:32]}.jsonl"
        self.done = dict[int, Batch]()
        if self.path.exists():
            self._read()

    def _read(self) -> None:
        whole = 0
        with self.path.open("rb") as lines:
            for line in lines:
                try:
                    batch = json.loads(line)
                    number = int(batch["batch"])
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                self.done[number], whole = batch, whole + len(line)
        with self.path.open("r+b") as file:
            file.truncate(whole)

    def add(self, number: int, batch: Batch) -> None:
        """Keep a finished batch; it is on disk when this returns."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.done[number] = batch
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(batch) + "\n")

    def forget(self) -> None:
        """The run is whole: remove its batches, and the folder if no other run's are in it."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        with suppress(OSError):
            self.path.parent.rmdir()
