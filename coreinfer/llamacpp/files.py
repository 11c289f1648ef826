"""The folder of written files: found again by what is in them, verified before llama.cpp sees a byte, bounded in size.

A file's name is its key (what was asked for) and the hash of its content, so neither can be there without the other.
llama.cpp's reader ends the process at some broken files; so what does not have its hash is written anew.
"""

import hashlib
import os
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from coreinfer.caching import REMEDY, is_abandoned, remove
from coreinfer.places import writing

BUDGET = 16 << 30  # bytes of files that stay; those used least recently go first
NAME = re.compile(r"[0-9a-f]{32}-[0-9a-f]{32}\.gguf")
UNFINISHED = re.compile(r"\.+new-[0-9a-f]{32}\.gguf(\.part)?")


class Files:
    """Written files in a folder, at most ``budget`` bytes of them, or one that is larger."""

    def __init__(self, folder: Path, budget: int = BUDGET) -> None:
        self.folder, self.budget = folder, budget

    def get(self, key: str, write: Callable[[Path], None]) -> Path:
        """The file of a key (hex), or a new one that ``write`` makes.

        Raises:
            CoreInferError: the folder cannot be written.
        """
        with writing(self.folder, REMEDY):
            self.folder.mkdir(parents=True, exist_ok=True)
            return self._found(key[:32]) or self._made(key[:32], write)

    def _found(self, key: str) -> Path | None:
        for path in self.folder.glob(f"{key}-*.gguf"):
            with suppress(FileNotFoundError):  # another process tidied
                if path.stem == f"{key}-{_digest(path)}":
                    os.utime(path)
                    return path
                path.unlink()
        return None

    def _made(self, key: str, write: Callable[[Path], None]) -> Path:
        new = self.folder / f".new-{uuid.uuid4().hex}.gguf"
        try:
            write(new)
            path = self.folder / f"{key}-{_digest(new)}.gguf"
            os.replace(new, path)
        finally:
            with suppress(OSError):
                new.unlink()
        with suppress(FileNotFoundError):  # another process does the same
            self._tidy()
        return path

    def _tidy(self) -> None:
        """Remove what is over the budget, and what a process left that was killed while it wrote."""
        seen = [(path, path.stat()) for path in self.folder.iterdir() if path.is_file()]
        finished = [(path, facts) for path, facts in seen if NAME.fullmatch(path.name)]
        total = 0
        for number, (path, facts) in enumerate(sorted(finished, key=lambda one: -one[1].st_mtime_ns)):
            total += facts.st_size
            if number and total > self.budget:
                remove(path)
        for path, _ in seen:
            if UNFINISHED.fullmatch(path.name) and is_abandoned(path):
                remove(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
