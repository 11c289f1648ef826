"""The folder of builds in the user's cache: bounded in size, what was used longest ago goes first."""

from contextlib import suppress
from pathlib import Path

from coreinfer.caching import remove
from coreinfer.claims import claimed

BUDGET = 16 << 30  # bytes of embeddings, recorded sums and measurements, all of which stay after a build


class _InUse(Exception):
    """Another build works there."""


def tidy(folder: Path, budget: int = BUDGET) -> None:
    """Remove what is over the ``budget``, and not in use; the newest stays whatever its size."""
    with suppress(OSError):  # another process tidies
        found = [path for path in folder.iterdir() if path.is_dir()]
        total = 0
        for number, path in enumerate(sorted(found, key=_used, reverse=True)):
            total += sum(file.stat().st_size for file in path.iterdir())
            if number and total > budget:
                _remove(path)


def _used(path: Path) -> float:
    """When a build last began in this folder."""
    key = path / "key.json"
    return (key if key.exists() else path).stat().st_mtime


def _remove(path: Path) -> None:
    def busy() -> None:
        raise _InUse

    with suppress(_InUse), claimed(path, busy) as alone:
        if alone:
            remove(path)
