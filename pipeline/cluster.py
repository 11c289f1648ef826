"""Embeddings -> centroids and assignments: spherical k-means, seeded, on a sample of bounded size.

Another seed finds other clusters (an adjusted Rand index around 0.4 between two runs is usual), so cluster ids mean
nothing outside their artifact.
"""

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


def kmeans(vectors: NDArray[np.float32], k: int, seed: int) -> NDArray[np.float32]:
    """Unit centroids (<= k, d) of unit vectors (n, d). FAISS samples 256 points a centroid unless told otherwise."""
    import faiss

    check_clusters(k, len(vectors))
    picked = np.sort(np.random.default_rng(seed).permutation(len(vectors))[:SAMPLE])
    sample = np.ascontiguousarray(vectors[picked], np.float32)
    trainer = faiss.Kmeans(
        sample.shape[1], k, niter=25, spherical=True, seed=seed,
        max_points_per_centroid=SAMPLE, min_points_per_centroid=1,
    )  # fmt: skip
    trainer.train(sample)
    return unit(np.asarray(trainer.centroids, np.float32).reshape(k, -1))


def assign(vectors: NDArray[np.float32], centroids: NDArray[np.float32]) -> Clustering:
    """Each vector's nearest centroid, in pieces; centroids that attract nothing are dropped."""
    index = make_index(centroids)
    labels = np.empty(len(vectors), np.int64)
    similarities = np.empty(len(vectors), np.float32)
    for at in range(0, len(vectors), 8192):
        best, ids = index.search(np.ascontiguousarray(vectors[at : at + 8192], np.float32), 1)
        labels[at : at + 8192], similarities[at : at + 8192] = ids[:, 0], best[:, 0]
    used, compact = np.unique(labels, return_inverse=True)
    return Clustering(centroids[used], compact.astype(np.int64), similarities)


def regroup(clustering: Clustering, k: int, seed: int) -> NDArray[np.int64]:
    """Group fine clusters into at most ``k`` coarse ones, weighted by size: coarse id of each fine cluster (K,)."""
    import faiss

    fine = clustering.centroids
    trainer = faiss.Kmeans(fine.shape[1], k, niter=25, spherical=True, seed=seed, min_points_per_centroid=1)
    trainer.train(fine, weights=clustering.sizes.astype(np.float32))
    _, ids = trainer.index.search(fine, 1)
    return np.unique(ids[:, 0], return_inverse=True)[1].astype(np.int64)
