"""Embeddings -> centroids and assignments, for one number of clusters or several: ``kmeans`` finds the finest.

Another seed finds other clusters (an adjusted Rand index around 0.4 between two runs is usual), so cluster ids mean
nothing outside their artifact.
"""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.match import EXACT, make_index
from pipeline.data import Candidates, Clustering
from pipeline.kmeans import FLAT, centroids_of, lloyd, nearest_of, pieces, sample_size
from pipeline.mapped import rows_of

CHECKED = 2048  # passages on which an approximate search is compared with an exact one


def check_clusters(k: int, passages: int) -> None:
    """Refuse a K that the corpus cannot fill."""
    if k < 1:
        raise CoreInferError(f"--clusters is {k}: give at least 1, or auto")
    if passages < k:
        raise CoreInferError(f"{passages} passages cannot make {k} clusters: give more text, or --clusters {passages}")


def kmeans(vectors: NDArray[np.float32], rows: NDArray[np.int64], k: int, seed: int) -> NDArray[np.float32]:
    """Unit centroids (<= k, d) of the ``rows`` of ``vectors`` (n, d), which may be a memory map.

    Raises:
        CoreInferError: fewer rows than clusters.
    """
    check_clusters(k, len(rows))
    return centroids_of(vectors, rows, k, seed)


def assign(vectors: NDArray[np.float32], rows: NDArray[np.int64], centroids: NDArray[np.float32]) -> Clustering:
    """The nearest centroid of each of the ``rows``, in pieces; centroids that attract nothing are dropped."""
    labels, similarities = nearest_of(vectors, rows, centroids)
    used, compact = np.unique(labels, return_inverse=True)
    return Clustering(centroids[used], compact.astype(np.int64), similarities)


def placed(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], centroids: NDArray[np.float32], labels: NDArray[np.int64]
) -> Clustering:
    """The clustering of ``rows`` (r,) whose ``labels`` (r,) are known: how similar each is to its centroid."""
    similarities = np.empty(len(rows), np.float32)
    for at in pieces(len(rows)):
        similarities[at] = (rows_of(vectors, rows[at]) * centroids[labels[at]]).sum(1)
    return Clustering(centroids, labels, similarities)


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
    weights = fine.sizes.astype(np.float32)
    found = lloyd(fine.centroids, k, seed, weights)
    groups = make_index(found).search(fine.centroids, 1)[1][:, 0]
    sums = np.zeros((k, fine.centroids.shape[1]), np.float32)
    np.add.at(sums, groups, fine.centroids * weights[:, None])
    return unit(sums[np.unique(groups)])


def how(
    vectors: NDArray[np.float32], rows: NDArray[np.int64], seen: int, ks: list[int], made: Clustering
) -> dict[str, Any]:
    """What a reader should know of how ``made``, of the ``rows``, came from k-means for the finest of ``ks`` over the
    passages ``seen``, some of which may have been lost since.
    """
    facts = {
        "passages": seen, "trained_on": sample_size(seen, ks[-1], vectors.shape[1]), "finest": ks[-1],
        "levels": 1 + (ks[-1] > FLAT), "search": "exact",
    }  # fmt: skip
    if len(made.centroids) > EXACT:
        facts |= {"search": "approximate", "recall": round(recall(vectors, rows, made), 4)}
    return facts


def recall(vectors: NDArray[np.float32], rows: NDArray[np.int64], made: Clustering) -> float:
    """The share of passages, of some evenly over all, that are in the cluster whose centroid is the nearest of all."""
    some = np.unique(np.linspace(0, len(rows) - 1, min(CHECKED, len(rows))).round().astype(np.int64))
    nearest = make_index(made.centroids, exact=True).search(rows_of(vectors, rows[some]), 1)[0][:, 0]
    return float((made.similarities[some] >= nearest - 1e-6).mean())
