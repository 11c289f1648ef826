"""What must be known of a shard beside its numbers: that it is bad, and why; that it ran in smaller batches."""

from typing import Any

from pipeline.shards.arrays import read_arrays, write_arrays
from pipeline.shards.store import Store

BAD, FEWER = "bad-", "fewer-"  # how the names of marks begin; the shard's number follows


def write(store: Store, kind: str, shard: int, facts: dict[str, Any]) -> None:
    """Mark a shard."""
    write_arrays(store.at(f"{kind}{shard:07d}"), store.key, facts, [])


def read(store: Store, kind: str) -> dict[int, dict[str, Any]]:
    """The marked shards, and what was said of them; damaged marks are none."""
    out = dict[int, dict[str, Any]]()
    for path in sorted(store.folder.glob(f"{kind}*")):
        if (found := read_arrays(path, store.key)) is not None:
            out[int(path.name.removeprefix(kind))] = found[0]
    return out


def remove(store: Store, kind: str, shard: int) -> None:
    """It is not so any more."""
    store.at(f"{kind}{shard:07d}").unlink(missing_ok=True)
