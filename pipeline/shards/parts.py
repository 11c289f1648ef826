"""What the long stages leave in a store: embeddings of each shard, clusterings, and each worker's running sums."""

import io
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from pipeline.data import Candidates, Statistics
from pipeline.shards.arrays import read_arrays, write_arrays
from pipeline.shards.plan import Plan
from pipeline.shards.sealed import as_bytes, open_sealed, write_sealed
from pipeline.shards.store import Store

SUMS = "sums-"  # how the names of running sums begin; a slot's name follows


def write_embeddings(store: Store, shard: int, vectors: NDArray[np.float32]) -> None:
    """A shard's unit vectors (n, d), as a .npy file with a seal."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, np.lib.format.header_data_from_array_1_0(vectors))
    write_sealed(_embeddings(store, shard), store.key, [head.getvalue(), as_bytes(vectors)])


def read_embeddings(store: Store, shard: int) -> NDArray[np.float32] | None:
    """The same; None where they are not there whole."""
    if open_sealed(path := _embeddings(store, shard), store.key) is None:
        return None
    return np.load(path, mmap_mode="r")  # type: ignore[no-any-return]


def embedded(store: Store, plan: Plan) -> set[int]:
    """The shards whose embeddings are there whole. A damaged file stays until its shard is done again: who looks while
    another machine writes must not remove anything.
    """
    return {shard for shard in range(plan.count) if read_embeddings(store, shard) is not None}


def damaged(store: Store, missing: Iterable[int]) -> list[int]:
    """Of shards without embeddings, those of which a file is there all the same."""
    return [shard for shard in missing if _embeddings(store, shard).exists()]


def _embeddings(store: Store, shard: int) -> Path:
    return store.at(f"{shard:07d}.npy")


def clusters_at(store: Store, key: str) -> Path:
    """Where the clusterings of this key lie, in the store of the embeddings that they are of."""
    return store.at(f"clusters-{key[:32]}")


def write_clusters(path: Path, key: str, options: Candidates, first: bool = False) -> None:
    """Clusterings that were tried, and each passage's cluster in them; ``first``: unless some are there."""
    sizes = [len(each) for each in options.centroids]
    write_arrays(path, key, {"clusters": sizes}, [np.concatenate(options.centroids), options.labels], first)


def begin_clusters(path: Path, key: str, options: Candidates) -> Candidates:
    """Write them, unless another machine was first.

    Raises:
        CoreInferError: it was, and found others from the same embeddings.
    """
    if read_clusters(path, key) is None:
        path.unlink(missing_ok=True)  # damaged
        write_clusters(path, key, options, first=True)
    there = read_clusters(path, key)
    if there is None or not _equal(there, options):
        raise CoreInferError(
            f"another machine found other clusters from the same embeddings ({path}), so its numbers are not this "
            "one's: run the pass on machines of one kind; a rerun here uses the clusters that are there"
        )
    return there


def _equal(one: Candidates, other: Candidates) -> bool:
    centroids = np.array_equal(np.concatenate(one.centroids), np.concatenate(other.centroids))
    return centroids and np.array_equal(one.labels, other.labels)


def read_clusters(path: Path, key: str) -> Candidates | None:
    """The same; None where they are not there whole."""
    if (found := read_arrays(path, key)) is None:
        return None
    facts, (centroids, labels) = found
    edges = np.cumsum([0, *facts["clusters"]]).tolist()
    return Candidates([np.array(centroids[a:b]) for a, b in pairwise(edges)], np.array(labels))


@dataclass(frozen=True)
class Running:
    """The sums of one slot, a place for one worker at a time, over the ``shards`` that it has done."""

    slot: str
    shards: frozenset[int]
    stats: Statistics


def write_sums(store: Store, slot: str, shards: Collection[int], stats: Statistics) -> None:
    """Replace a slot's sums. They and the list of their shards are one file, so neither can be there alone."""
    arrays = [stats.passages, stats.tokens, stats.sums]
    write_arrays(store.at(f"{SUMS}{slot}"), store.key, {"shards": sorted(shards)}, arrays)


def read_sums(store: Store, slot: str) -> Running | None:
    """A slot's sums as read-only views of its file; None where they are not there whole."""
    if (found := read_arrays(store.at(f"{SUMS}{slot}"), store.key)) is None:
        return None
    facts, (passages, tokens, sums) = found
    return Running(slot, frozenset(facts["shards"]), Statistics(sums, passages, tokens))


def disjoint(store: Store, plan: Plan) -> tuple[list[Running], set[str]]:
    """The slots' sums that count together, each shard once, and the slots whose sums do not: damaged ones, those with
    other passages than their shards have, and those with a shard that another has who did more.
    """
    slots = [path.name.removeprefix(SUMS) for path in store.folder.glob(f"{SUMS}*")]
    options = read_clusters(store.at("clusters"), store.key)
    found = [running for slot in slots if (running := read_sums(store, slot)) and _adds_up(running, options, plan)]
    seen, out = set[int](), list[Running]()
    for running in sorted(found, key=lambda one: (-len(one.shards), one.slot)):
        if not running.shards & seen:
            seen |= running.shards
            out.append(running)
    return out, set(slots) - {running.slot for running in out}


def shards_of(parts: Iterable[Running]) -> set[int]:
    """All that they have done."""
    return {shard for running in parts for shard in running.shards}


def _adds_up(running: Running, options: Candidates | None, plan: Plan) -> bool:
    """Whether each cluster has as many passages as the shards have of it; without clusters nothing was recorded."""
    if options is None:
        return False
    wanted = np.zeros(len(running.stats.passages), np.int64)
    for shard in running.shards:
        rows = plan.rows(shard)
        labels = options.labels[:, rows.start : rows.stop]
        wanted += np.bincount(labels[labels >= 0], minlength=len(wanted))
    return np.array_equal(wanted, running.stats.passages)


def added(parts: Iterable[Running], shape: tuple[int, int, int]) -> Statistics:
    """The sum of all of them, exact in any order; ``shape`` is (K, L, F)."""
    out = Statistics.zeros(*shape)
    for part in parts:
        out.sums += part.stats.sums
        out.passages += part.stats.passages
        out.tokens += part.stats.tokens
    return out
