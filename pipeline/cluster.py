"""Embeddings -> centroids and assignments: spherical k-means, seeded, on a sample of bounded size.

Another seed finds other clusters (an adjusted Rand index around 0.4 between two runs is usual), so cluster ids mean
nothing outside their artifact.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.match import make_index

SAMPLE = 65_536  # passages that k-means trains on at most, so that its memory does not grow with the corpus
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Clustering:
    """Centroids (K, d) unit float32; per passage its cluster (n,) and similarity to its centroid (n,)."""

    centroids: NDArray[np.float32]
    labels: NDArray[np.int64]
    similarities: NDArray[np.float32]

    @property
    def sizes(self) -> NDArray[np.int64]:
        return np.bincount(self.labels, minlength=len(self.centroids)).astype(np.int64)

    def quantiles(self) -> NDArray[np.float32]:
        """Similarity to the centroid at ``QUANTILES``, (K, 5)."""
        rows = [np.quantile(self.similarities[self.labels == c], QUANTILES) for c in range(len(self.centroids))]
        return np.asarray(rows, np.float32)


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
    index = make_index(centroids)
    labels, similarities = np.empty(len(rows), np.int64), np.empty(len(rows), np.float32)
    for at in _pieces(len(rows)):
        best, ids = index.search(np.ascontiguousarray(vectors[rows[at]], np.float32), 1)
        labels[at], similarities[at] = ids[:, 0], best[:, 0]
    used, compact = np.unique(labels, return_inverse=True)
    return Clustering(centroids[used], compact.astype(np.int64), similarities)


def grouped(
    fine: Clustering,
    vectors: NDArray[np.float32],
    rows: NDArray[np.int64],
    centroids: NDArray[np.float32],
    groups: NDArray[np.int64],
) -> Clustering:
    """The clustering in which fine cluster c is part of ``groups[c]``, whose centroid is ``centroids[groups[c]]``."""
    labels, similarities = groups[fine.labels], np.empty(len(rows), np.float32)
    for at in _pieces(len(rows)):
        similarities[at] = np.einsum("nd,nd->n", vectors[rows[at]], centroids[labels[at]])
    return Clustering(centroids, labels, similarities)


def _pieces(count: int) -> Iterator[slice]:
    return (slice(at, at + 8192) for at in range(0, count, 8192))


def regroup(clustering: Clustering, k: int, seed: int) -> NDArray[np.int64]:
    """Group fine clusters into at most ``k`` coarse ones, weighted by size: coarse id of each fine cluster (K,)."""
    import faiss

    fine = clustering.centroids
    trainer = faiss.Kmeans(fine.shape[1], k, niter=25, spherical=True, seed=seed, min_points_per_centroid=1)
    trainer.train(fine, weights=clustering.sizes.astype(np.float32))
    _, ids = trainer.index.search(fine, 1)
    return np.unique(ids[:, 0], return_inverse=True)[1].astype(np.int64)
