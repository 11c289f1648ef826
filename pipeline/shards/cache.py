"""The folder of builds in the user's cache: bounded in size, what was used longest ago goes first."""

from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from coreinfer.caching import remove
from coreinfer.claims import Busy, claimed, raise_busy, unused

BUDGET = 16 << 30  # bytes of embeddings, recorded sums and measurements, all of which stay after a build


def tidy(folder: Path, budget: int = BUDGET, mine: Collection[Path] = ()) -> None:
    """Remove what is over the ``budget`` and not in use. The newest stays whatever its size, and so do ``mine``: what
    one build goes on from are several folders.
    """
    with suppress(OSError):  # another process tidies
        found = [path for path in folder.iterdir() if path.is_dir()]
        total = 0
        for number, path in enumerate(sorted(found, key=_used, reverse=True)):
            total += sum(file.stat().st_size for file in path.iterdir())
            if number and total > budget and path not in mine:
                _remove(path)


def _used(path: Path) -> float:
    """When a build last began in this folder."""
    key = path / "key.json"
    return (key if key.exists() else path).stat().st_mtime


def _remove(path: Path) -> None:
    with suppress(Busy), unused(path) as free, claimed(path, raise_busy) as alone:
        if free and alone:
            remove(path)
