"""Held-out passages -> the number of clusters and the first threshold. Nothing here saw the held-out text before.

K is chosen by measured prediction quality per artifact byte: of a few candidates, each made by grouping the finest
clusters (their statistics merge by addition, so one pass over the corpus serves all), the smallest whose sets capture
at least ``ENOUGH`` of the best candidate's gain over the global set. Captured is the share of a held-out passage's own
statistic that the set of its nearest cluster holds.
"""

import numpy as np
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.match import make_index
from coreinfer.neurons import captured, mean_share, shrink, top, uniform_budgets
from coreinfer.settings import PolicySettings
from pipeline.cluster import Clustering, regroup
from pipeline.record import Statistics

ENOUGH = 0.97
WEAKEST = 0.05  # the threshold is this quantile of held-out similarities
MOST = 256  # the finest candidate for --clusters auto
PREFIX = 250  # characters of a held-out passage that stand for a prompt


def held_out(count: int, seed: int) -> NDArray[np.int64]:
    """Indices of about 2% of ``count`` passages, at least 1 in 20 of a small corpus, at most 512; sorted."""
    size = min(512, max(count // 50, min(count // 20, 32)))
    return np.sort(np.random.default_rng(seed + 1).permutation(count)[:size]).astype(np.int64)


def candidates(passages: int) -> list[int]:
    """Numbers of clusters to try, finest last: powers of two with at least 8 passages a cluster on average."""
    finest = max(1, min(MOST, passages // 8))
    return sorted({finest, *(2**i for i in range(2, 9) if 2**i < finest)})


def priors(stats: Statistics, weight: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Statistics -> the global prior (L, F) and each cluster's, shrunk to it, (K, L, F)."""
    everything = mean_share(stats.sums.sum(0), int(stats.passages.sum()))
    each = [
        shrink(mean_share(sums, int(n)), int(n), everything, weight)
        for sums, n in zip(stats.sums, stats.passages, strict=True)
    ]
    return everything, np.stack(each)


def quality(
    stats: Statistics,
    centroids: NDArray[np.float32],
    vectors: NDArray[np.float32],
    shares: NDArray[np.float32],
    keep: float,
) -> tuple[float, float]:
    """Mean captured share of held-out passages by their nearest cluster's set, and by the global set."""
    everything, each = priors(stats, PolicySettings.shrink)
    budgets = uniform_budgets(keep, *everything.shape)
    sets = [top(prior, budgets) for prior in each]
    one = top(everything, budgets)
    _, ids = make_index(centroids).search(np.ascontiguousarray(vectors, np.float32), 1)
    mine = np.mean([captured(s, sets[i]) for s, i in zip(shares, ids[:, 0], strict=True)])
    return float(mine), float(np.mean([captured(s, one) for s in shares]))


def coarser(fine: Clustering, stats: Statistics, k: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Centroids of at most ``k`` groups of the fine clusters, and each fine cluster's group."""
    groups = regroup(fine, k, seed)
    sums = np.zeros((int(groups.max()) + 1, fine.centroids.shape[1]), np.float32)
    np.add.at(sums, groups, fine.centroids * stats.passages[:, None].astype(np.float32))
    return unit(sums), groups


def choose_k(
    fine: Clustering,
    stats: Statistics,
    vectors: NDArray[np.float32],
    shares: NDArray[np.float32],
    keep: float,
    seed: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64], list[dict[str, float]]]:
    """The rule above -> centroids (K, d), group of each fine cluster, and the table it was chosen from."""
    options, rows = [], []
    for k in candidates(int(stats.passages.sum())):
        whole = k >= len(fine.centroids)
        centroids, groups = (fine.centroids, np.arange(len(fine.centroids))) if whole else coarser(fine, stats, k, seed)
        mine, everything = quality(stats.grouped(groups), centroids, vectors, shares, keep)
        options.append((centroids, groups))
        rows.append({"clusters": len(centroids), "captured": round(mine, 6), "global": round(everything, 6)})
    gains = np.array([row["captured"] - row["global"] for row in rows])
    best = int(np.argmax(gains >= ENOUGH * gains.max())) if gains.max() > 0 else 0
    return *options[best], rows


def threshold(similarities: NDArray[np.float32]) -> float:
    """The first threshold: only 1 in 20 held-out prompts of the corpus itself matches more weakly."""
    return round(float(np.quantile(similarities, WEAKEST)), 4) if len(similarities) else PolicySettings.threshold
