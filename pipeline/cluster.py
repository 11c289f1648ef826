"""Embeddings -> centroids and assignments: spherical k-means, seeded, on a sample of bounded size.

Another seed finds other clusters (an adjusted Rand index around 0.4 between two runs is usual), so cluster ids mean
nothing outside their artifact.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.match import make_index
from pipeline.data import Candidates, Clustering

SAMPLE = 65_536  # passages that k-means trains on at most, so that its memory does not grow with the corpus


def check_clusters(k: int, passages: int) -> None:
    """Refuse a K that the corpus cannot fill."""
    if k < 1:
        raise CoreInferError(f"--clusters is {k}: give at least 1, or auto")
    if passages < k:
        raise CoreInferError(f"{passages} passages cannot make {k} clusters: give more text, or --clusters {passages}")


def kmeans(vectors: NDArray[np.float32], rows: NDArray[np.int64], k: int, seed: int) -> NDArray[np.float32]:
    """Unit centroids (<= k, d) of the ``rows`` of ``vectors`` (n, d), which may be a memory map.

    FAISS samples 256 points a centroid unless told otherwise; here the sample is ``SAMPLE`` rows at most.
    """
    import faiss

    check_clusters(k, len(rows))
    picked = np.sort(np.random.default_rng(seed).permutation(rows)[:SAMPLE])
    trainer = faiss.Kmeans(
        vectors.shape[1], k, niter=25, spherical=True, seed=seed,
        max_points_per_centroid=SAMPLE, min_points_per_centroid=1,
    )  # fmt: skip
    trainer.train(np.ascontiguousarray(vectors[picked], np.float32))
    return unit(np.asarray(trainer.centroids, np.float32).reshape(k, -1))


def assign(vectors: NDArray[np.float32], rows: NDArray[np.int64], centroids: NDArray[np.float32]) -> Clustering:
    """The nearest centroid of each of the ``rows``, in pieces; centroids that attract nothing are dropped."""
    labels, similarities = nearest_of(vectors, rows, centroids)
    used, compact = np.unique(labels, return_inverse=True)
    return Clustering(centroids[used], compact.astype(np.int64), similarities)


def nearest_of(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], centroids: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The nearest centroid of each of the ``rows`` (r,) of ``vectors``, and the similarity to it, in pieces."""
    index = make_index(centroids)
    labels, similarities = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for at in pieces(len(rows)):
        best, ids = index.search(np.ascontiguousarray(vectors[rows[at]], np.float32), 1)
        labels[at], similarities[at] = ids[:, 0], best[:, 0]
    return labels, similarities


def pieces(count: int) -> Iterator[slice]:
    """Rows by so many that memory stays flat."""
    return (slice(at, at + 8192) for at in range(0, count, 8192))


def candidates(vectors: NDArray[np.float32], rows: NDArray[np.int64], ks: list[int], seed: int) -> Candidates:
    """A clustering of the ``rows`` of ``vectors`` (n, d) for each of ``ks``, which rise: the finest by k-means over
    passages, the others by k-means over its centroids. In each of them a passage belongs to the nearest centroid, as a
    prompt will, so all of them are assigned before one pass records them together.
    """
    fine = assign(vectors, rows, kmeans(vectors, rows, ks[-1], seed))
    coarse = (assign(vectors, rows, coarser(fine, k, seed)) for k in ks[:-1] if k < len(fine.centroids))
    centroids, labels, first = list[NDArray[np.float32]](), list[NDArray[np.int32]](), 0
    for made in chain(coarse, [fine]):  # one at a time: what is kept of each is 4 bytes a passage
        mine = np.full(len(vectors), -1, np.int32)
        mine[rows] = first + made.labels
        first += len(made.centroids)
        centroids.append(made.centroids)
        labels.append(mine)
    return Candidates(centroids, np.stack(labels))


def coarser(fine: Clustering, k: int, seed: int) -> NDArray[np.float32]:
    """Unit centroids (<= k, d) of groups of the fine clusters; every passage weighs the same."""
    import faiss

    weights = fine.sizes.astype(np.float32)
    trainer = faiss.Kmeans(
        fine.centroids.shape[1], k, niter=25, spherical=True, seed=seed,
        max_points_per_centroid=len(weights), min_points_per_centroid=1,
    )  # fmt: skip
    trainer.train(fine.centroids, weights=weights)
    groups = trainer.index.search(fine.centroids, 1)[1][:, 0]
    sums = np.zeros((k, fine.centroids.shape[1]), np.float32)
    np.add.at(sums, groups, fine.centroids * weights[:, None])
    return unit(sums[np.unique(groups)])
