"""The nearest of very many centroids without comparing all of them: an inverted file over the centroids, through FAISS.

The centroids are cut into lists by a small k-means over themselves; a vector is compared with the heads of all lists,
and with the centroids of the ``PROBES`` nearest. Lists, and so what is found, depend on the centroids alone: they are
the same on any number of threads, which those of a graph (HNSW) that is built in parallel are not. What is found has
exact similarities; what is missed, and what it saves, docs/SCALE.md measures.
"""

from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

LISTS = 4  # times the square root of K
PROBES = 16
ROUNDS, POINTS = 5, 64  # of the k-means that cuts them: its passes, and centroids a list that it looks at


class Approximate:
    """An index over unit vectors (K, d) that answers as an exact one of FAISS does.

    Attributes:
        ntotal: K.
    """

    def __init__(self, centroids: NDArray[np.float32], probes: int = PROBES) -> None:
        self._centroids = np.ascontiguousarray(centroids, np.float32)
        self.ntotal, self._lists = len(centroids), _lists(self._centroids)
        self._lists.nprobe = probes

    def search(self, vectors: NDArray[np.float32], m: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Vectors (n, d) -> the similarities and the numbers of the ``m`` nearest centroids found, best first, (n, m).
        For a vector whose lists hold fewer than that, all centroids are compared.
        """
        import faiss

        similarities, ids = self._lists.search(vectors, m)
        if len(short := np.flatnonzero((ids < 0).any(1))):
            exact = faiss.knn(vectors[short], self._centroids, m, metric=faiss.METRIC_INNER_PRODUCT)
            similarities[short], ids[short] = exact
        return similarities, ids


def _lists(centroids: NDArray[np.float32]) -> Any:
    import faiss

    count, dimension = centroids.shape
    lists = max(1, min(count, LISTS * isqrt(count)))
    made = faiss.IndexIVFFlat(faiss.IndexFlatIP(dimension), dimension, lists, faiss.METRIC_INNER_PRODUCT)
    made.cp.spherical, made.cp.niter, made.cp.seed = True, ROUNDS, 0
    made.cp.min_points_per_centroid, made.cp.max_points_per_centroid = 1, POINTS
    made.train(centroids)
    made.add(centroids)
    return made
