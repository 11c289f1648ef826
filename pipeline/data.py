"""What stages hand to each other in memory: clusterings, recorded sums, measurements. Arrays and arithmetic, no I/O."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.neurons import Sums, fixed

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
        order = np.argsort(self.labels, kind="stable")
        members = np.split(self.similarities[order], np.cumsum(self.sizes)[:-1])
        return np.asarray([np.quantile(some, QUANTILES) for some in members], np.float32)


@dataclass
class Statistics:
    """Sums of shares (K, L, F) in fixed point, passages (K,) and tokens (K,) behind them.

    The sums stay in memory while a corpus is recorded: 8 * K * L * F bytes.
    """

    sums: Sums
    passages: NDArray[np.int64]
    tokens: NDArray[np.int64]

    @classmethod
    def zeros(cls, clusters: int, layers: int, width: int) -> "Statistics":
        counts = np.zeros((2, clusters), np.int64)
        return cls(np.zeros((clusters, layers, width), np.int64), counts[0], counts[1])

    def add(self, rows: NDArray[np.integer], shares: NDArray[np.float64], tokens: NDArray[np.int64]) -> None:
        """One batch, shares (B, L, F) and tokens (B,), to ``rows`` (m, B): one of each clustering for each passage."""
        for mine, one in zip(rows.T, shares, strict=True):
            exact = fixed(one)
            for row in mine:
                self.sums[row] += exact
        for some in rows:
            np.add.at(self.passages, some, 1)
            np.add.at(self.tokens, some, tokens)

    def part(self, rows: slice) -> "Statistics":
        """Some of the rows, as a view."""
        return Statistics(self.sums[rows], self.passages[rows], self.tokens[rows])


@dataclass(frozen=True)
class Candidates:
    """m clusterings of one corpus, the coarsest first, whose clusters are numbered through.

    ``centroids``: (K_i, d) of each. ``labels``: int32 (m, n), the cluster of each passage in each clustering, -1 for
    passages that belong to none.
    """

    centroids: list[NDArray[np.float32]]
    labels: NDArray[np.int32]

    @property
    def rows(self) -> list[slice]:
        """Each clustering's part of the numbers."""
        edges = np.cumsum([0, *map(len, self.centroids)]).tolist()
        return [slice(a, b) for a, b in pairwise(edges)]

    def without(self, rows: NDArray[np.int64]) -> "Candidates":
        """The same clusterings; these passages belong to none."""
        labels = self.labels.copy()
        labels[:, rows] = -1
        return Candidates(self.centroids, labels)

    def labels_of(self, which: int) -> NDArray[np.int64]:
        """One clustering's labels, from 0; (n,)."""
        mine = self.labels[which].astype(np.int64)
        return np.where(mine < 0, -1, mine - self.rows[which].start)


Arrays = Sequence[NDArray[Any]]
Remember = Callable[[str, dict[str, Any], Callable[[], Arrays]], Arrays]  # a step's name, what decides it, how to do it


def forget(step: str, facts: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
    """A ``Remember`` that keeps nothing."""
    return make()
