"""Prompt vector -> the nearest clusters, by the inner product of unit vectors, through FAISS: with every centroid, or
where there are very many, with those that an approximate search picks.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.approximate import Approximate

EXACT = 4096  # clusters up to which comparing all of them takes about as long


@dataclass(frozen=True)
class Match:
    """The ``m`` nearest clusters, best first, and their cosine similarities, (m,) each."""

    clusters: NDArray[np.int64]
    similarities: NDArray[np.float32]

    @property
    def cluster(self) -> int:
        return int(self.clusters[0])

    @property
    def similarity(self) -> float:
        return float(self.similarities[0])

    @property
    def margin(self) -> float:
        """How much nearer the first is than the second; 0 where there is only one cluster."""
        return float(self.similarities[0] - self.similarities[1]) if len(self.similarities) > 1 else 0.0


def make_index(centroids: NDArray[np.float32], exact: bool = False) -> Any:
    """An inner-product index over unit vectors (K, d); of more than ``EXACT``, an approximate one unless ``exact``.

    0.1 ms at K = 256, so it is never read from disk.
    """
    if len(centroids) > EXACT and not exact:
        return Approximate(centroids)
    import faiss

    index = faiss.IndexFlatIP(centroids.shape[1])
    index.add(np.ascontiguousarray(centroids, np.float32))
    return index


def nearest(index: Any, vectors: NDArray[np.float32], m: int) -> list[Match]:
    """Vectors (n, d) -> a match each, of ``min(m, K)`` clusters."""
    similarities, ids = index.search(np.ascontiguousarray(vectors, np.float32), min(m, index.ntotal))
    return [Match(i.astype(np.int64), s) for s, i in zip(similarities, ids, strict=True)]
