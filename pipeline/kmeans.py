"""Embeddings -> unit centroids: spherical k-means, seeded, on a sample whose size follows from K.

Up to ``FLAT`` centroids come from Lloyd's algorithm over all of them at once. More come in two levels: about sqrt(K)
groups of passages first, then each group's own centroids, as many as its share of the sample; then all are moved
``MOVES`` times to the mean of the passages that are nearest to them, over the borders of groups. Work then grows with
K^1.5 in place of K^2, or nearly, for points a centroid are constant, and no more than one group is in memory at a time.
What it costs in similarity docs/SCALE.md measures.
"""

from collections.abc import Iterator
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.match import make_index
from pipeline.mapped import rows_of

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]

POINTS = 256  # passages a centroid in the sample: more make no better centroids
LEAST = 65_536  # passages in it, where there are as many: they take seconds
MOST = 1 << 29  # bytes of embeddings that are in memory to train on at a time
FLAT = 1024  # centroids found at once
ROUNDS = 25  # passes of Lloyd's algorithm
MOVES = 2
PIECE = 8192  # passages that are assigned at a time


def sample_size(passages: int, k: int, dimension: int) -> int:
    """Of so many passages, how many k-means trains on. Of two levels only one group at a time lies in memory."""
    wanted = min(passages, max(LEAST, POINTS * k))
    return wanted if k > FLAT else max(min(passages, k), min(wanted, _room(dimension)))


def centroids_of(vectors: Vectors, rows: Rows, k: int, seed: int) -> Vectors:
    """Unit centroids (<= k, d) of the ``rows`` of ``vectors`` (n, d), which may be a memory map."""
    size = sample_size(len(rows), k, vectors.shape[1])
    picked = np.sort(np.random.default_rng(seed).permutation(rows)[:size])
    return lloyd(rows_of(vectors, picked), k, seed) if k <= FLAT else _two_levels(vectors, picked, k, seed)


def lloyd(points: Vectors, k: int, seed: int, weights: NDArray[np.float32] | None = None) -> Vectors:
    """Unit centroids (k, d) of all ``points`` (n, d), each of which may weigh something else, (n,).

    FAISS samples 256 points a centroid unless told otherwise.
    """
    import faiss

    trainer = faiss.Kmeans(
        points.shape[1], k, niter=ROUNDS, spherical=True, seed=seed,
        max_points_per_centroid=len(points), min_points_per_centroid=1,
    )  # fmt: skip
    trainer.train(points, weights=weights)
    return unit(np.asarray(trainer.centroids, np.float32).reshape(k, -1))


def _two_levels(vectors: Vectors, picked: Rows, k: int, seed: int) -> Vectors:
    groups = isqrt(k)
    heads = centroids_of(vectors, picked, groups, seed)
    labels = nearest_of(vectors, picked, heads)[0]
    sizes = np.bincount(labels, minlength=groups)
    order, ends = np.argsort(labels, kind="stable"), np.cumsum(sizes)
    rng, made = np.random.default_rng(seed), list[Vectors]()
    for end, size, number in zip(ends, sizes, apportioned(sizes, k), strict=True):
        mine = picked[order[end - size : end]]
        if len(mine) > (most := max(_room(vectors.shape[1]), number)):
            mine = np.sort(rng.choice(mine, most, replace=False))
        if number:
            made.append(centroids_of(vectors, mine, int(number), seed))
    centroids = np.concatenate(made)
    for _ in range(MOVES):
        centroids = _moved(vectors, picked, centroids)
    return centroids


def _moved(vectors: Vectors, picked: Rows, centroids: Vectors) -> Vectors:
    """Each centroid at the mean direction of those of ``picked`` that are nearest to it; without any, where it was."""
    labels, sums = nearest_of(vectors, picked, centroids)[0], np.zeros(centroids.shape)
    for at in pieces(len(picked)):
        order = np.argsort(labels[at], kind="stable")
        found, first = np.unique(labels[at][order], return_index=True)
        sums[found] += np.add.reduceat(rows_of(vectors, picked[at])[order], first, axis=0)
    some = np.bincount(labels, minlength=len(centroids)) > 0
    return np.where(some[:, None], unit(sums.astype(np.float32)), centroids)


def apportioned(sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """``k`` centroids for groups of these sizes (g,), in proportion: at most as many as a group has members, at least
    one where it has any; ``k`` lies between the groups that have and all members.
    """
    some = sizes > 0
    given = np.minimum(sizes, np.maximum(some, sizes * k // max(1, sizes.sum())))
    while left := k - int(given.sum()):
        worth = sizes / np.maximum(given, 1)  # members a centroid
        open_ = np.flatnonzero(given < sizes if left > 0 else given > 1)
        order = open_[np.argsort(-np.sign(left) * worth[open_], kind="stable")][: abs(left)]
        given[order] += np.sign(left)
    return np.asarray(given, np.int64)


def nearest_of(vectors: Vectors, rows: Rows, centroids: Vectors) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centroid of each of the ``rows`` (r,) of ``vectors``, and the similarity to it, in pieces; where
    there are very many centroids, the nearest that an approximate search finds.
    """
    index = make_index(centroids)
    labels, similarities = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for at in pieces(len(rows)):
        best, ids = index.search(rows_of(vectors, rows[at]), 1)
        labels[at], similarities[at] = ids[:, 0], best[:, 0]
    return labels, similarities


def pieces(count: int) -> Iterator[slice]:
    """Rows by so many that memory stays flat."""
    return (slice(at, at + PIECE) for at in range(0, count, PIECE))


def _room(dimension: int) -> int:
    """Embeddings that fit into ``MOST`` bytes."""
    return MOST // (4 * dimension)
