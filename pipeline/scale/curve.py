"""How long k-means and assignment take, and how much memory, by the number of embeddings and of clusters; and a search.

Each point is measured as a build does it: from a file, by the functions that a build calls.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coreinfer.approximate import Approximate
from coreinfer.match import EXACT, make_index
from coreinfer.memory.peak import Peak
from coreinfer.progress import Stage, unseen
from pipeline.cluster import recall
from pipeline.data import Clustering
from pipeline.embed import open_vectors
from pipeline.kmeans import centroids_of, nearest_of, sample_size
from pipeline.scale.synthetic import Synthetic

FEWEST = 12  # embeddings a cluster; with fewer a point is left out
QUERIES, ALONE, NEAREST = 4096, 64, 16  # searched together, and one after another; clusters found


@dataclass(frozen=True)
class Point:
    """K-means and assignment of ``embeddings`` to ``clusters``.

    Attributes:
        trained_on: embeddings of the sample.
        train, assign: processor seconds.
        train_peak, assign_peak: the most bytes in memory beyond what the process had before, pages of the file among
            them.
        similarity: mean cosine of an embedding and its centroid.
        recall: share of embeddings whose centroid is the nearest of all.
    """

    embeddings: int
    clusters: int
    trained_on: int
    train: float
    assign: float
    train_peak: int
    assign_peak: int
    similarity: float
    recall: float


def curve(
    made: Synthetic, sizes: Sequence[int], ks: Sequence[int], scratch: Path, stage: Stage = unseen
) -> Iterator[Point]:
    """A point for each size and each number of clusters that it can fill; the embeddings lie in ``scratch``."""
    path = scratch / "embeddings.npy"
    for size in sizes:
        stage(f"write {size:,} embeddings", None)(0)
        made.write(path, size)
        for k in ks:
            if size >= FEWEST * k:
                yield point(open_vectors(path), k, stage)
    path.unlink(missing_ok=True)


def point(vectors: NDArray[np.float32], k: int, stage: Stage = unseen) -> Point:
    """One of them, of embeddings (n, d) that may be a memory map."""
    rows, peak = np.arange(len(vectors)), Peak(torch.device("cpu"))
    stage(f"train {k:,} of {len(vectors):,}", None)(0)
    train, centroids = _timed(lambda: centroids_of(vectors, rows, k, 0))
    trained = peak.bytes
    peak.restart()
    stage(f"assign {len(vectors):,} to {k:,}", None)(0)
    assign, (labels, similarities) = _timed(lambda: nearest_of(vectors, rows, centroids))
    assigned = peak.bytes
    found = recall(vectors, rows, Clustering(centroids, labels, similarities))
    return Point(
        len(vectors), k, sample_size(len(vectors), k, vectors.shape[1]), round(train, 2), round(assign, 2), trained,
        assigned, round(float(similarities.mean(dtype=np.float64)), 4), round(found, 4),
    )  # fmt: skip


@dataclass(frozen=True)
class Search:
    """Exact against approximate search of ``clusters`` centroids.

    Attributes:
        make: processor seconds that the approximate index takes to be made.
        exact_alone, alone: microseconds of a search for one embedding, as online; exact, together: of each of many.
        nearest: share whose nearest centroid is found; sixteen: share of the ``NEAREST`` nearest that is.
    """

    clusters: int
    make: float
    exact_alone: float
    alone: float
    exact: float
    together: float
    nearest: float
    sixteen: float


def search(made: Synthetic) -> Search:
    """Of the topics of ``made``, as if they were centroids."""
    queries, centroids = made.block(0, QUERIES), made.topics
    seconds, index = _timed(lambda: Approximate(centroids))
    exact_alone, exact, wanted = _searched(make_index(centroids, exact=True), queries)
    alone, together, found = _searched(index, queries)
    shared = [len(set(a) & set(b)) for a, b in zip(found.tolist(), wanted.tolist(), strict=True)]
    return Search(
        len(centroids), round(seconds, 3), exact_alone, alone, exact, together,
        round(float((found[:, 0] == wanted[:, 0]).mean()), 4), round(sum(shared) / (NEAREST * len(shared)), 4),
    )  # fmt: skip


def _searched(index: Any, queries: NDArray[np.float32]) -> tuple[float, float, NDArray[np.int64]]:
    """Microseconds of a search alone, and of one of many; the clusters found, (n, ``NEAREST``)."""
    together, (_, ids) = _timed(lambda: index.search(queries, NEAREST))
    alone, _ = _timed(lambda: [index.search(query[None], NEAREST) for query in queries[:ALONE]])
    return round(1e6 * alone / ALONE, 1), round(1e6 * together / len(queries), 1), ids


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    made = work()
    return time.process_time() - begun, made


def is_approximate(k: int) -> bool:
    """Whether a build with so many clusters searches approximately."""
    return k > EXACT
