"""A folder for the corpus while one machine works on it, in the folder that machines share."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coreinfer.caching import is_abandoned, remove
from coreinfer.claims import Busy, claimed, raise_busy


@contextmanager
def scratch(shared: Path) -> Iterator[Path]:
    """A new one; what killed machines left is removed. A pass may take days, in which its folder does not change: so
    how old one is says little, and who has it holds its claim.
    """
    for left in shared.glob(".scratch.*"):
        if is_abandoned(left):
            with suppress(Busy), claimed(left, raise_busy) as alone:
                if alone:
                    remove(left)
    with tempfile.TemporaryDirectory(prefix=".scratch.", dir=shared) as folder, claimed(Path(folder), raise_busy):
        yield Path(folder)
