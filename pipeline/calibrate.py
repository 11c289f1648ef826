"""Held-out passages -> the number of clusters and the first threshold. Nothing here saw the held-out text before.

K is chosen by measured prediction quality per artifact byte: of a few candidates, recorded together in one pass over
the corpus, the smallest whose sets capture at least ``ENOUGH`` of the best candidate's gain over the global set.
Captured is the share of a held-out passage's own statistic that its set holds: the set of the mixture of its nearest
clusters, which is what ``similarity`` keeps online.
"""

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from coreinfer.match import Match, make_index, nearest
from coreinfer.neurons import captured, mean_share, mix, mixture_weights, shrink, top, uniform_budgets
from coreinfer.settings import PolicySettings
from pipeline.data import Arrays, Candidates, Remember, Statistics, forget

ENOUGH = 0.97
WEAKEST = 0.05  # the threshold is this quantile of held-out similarities
MOST = 256  # the finest candidate for --clusters auto

Shares = Iterable[tuple[NDArray[np.int64], NDArray[np.floating]]]  # (indices of texts, their shares (B, L, F)) a batch


def numbers(passages: int) -> list[int]:
    """Numbers of clusters to try, finest last: powers of two with at least 8 passages a cluster on average."""
    finest = max(1, min(MOST, passages // 8))
    return sorted({finest, *(2**i for i in range(2, 9) if 2**i < finest)})


def everything(stats: Statistics) -> NDArray[np.float64]:
    """The global prior (L, F)."""
    return mean_share(stats.sums.sum(0), int(stats.passages.sum()))


def prior(stats: Statistics, cluster: int, whole: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """A cluster's prior (L, F), drawn to the global one, ``whole``."""
    count = int(stats.passages[cluster])
    return shrink(mean_share(stats.sums[cluster], count), count, whole, weight)


def priors(stats: Statistics, weight: float) -> Iterator[NDArray[np.float64]]:
    """The global prior, then each cluster's as it is asked for, (L, F) each: never all at once."""
    yield (whole := everything(stats))
    yield from (prior(stats, cluster, whole, weight) for cluster in range(len(stats.passages)))


def quality(
    centroids: list[NDArray[np.float32]],
    stats: list[Statistics],
    vectors: NDArray[np.float32],
    shares: Shares,
    keep: float,
) -> tuple[NDArray[np.float64], float]:
    """Mean captured share of held-out passages by each clustering's sets, (m,), and by the global set.

    ``vectors`` (h, d) are the passages' embeddings. Their ``shares`` come by the batch and are not kept.
    """
    whole = everything(stats[-1])
    budgets, policy = uniform_budgets(keep, *whole.shape), PolicySettings()
    matches = [nearest(make_index(c), vectors, policy.mixture) for c in centroids]
    found = np.zeros((len(vectors), len(stats) + 1))
    for picked, some in shares:
        for i, share in zip(picked, some, strict=True):
            mixtures = (_mixture(s, m[i], whole, policy) for s, m in zip(stats, matches, strict=True))
            found[i] = [captured(share, top(score, budgets)) for score in (*mixtures, whole)]
    *mine, general = found.mean(0)
    return np.array(mine), float(general)


def _mixture(
    stats: Statistics, match: Match, whole: NDArray[np.float64], policy: PolicySettings
) -> NDArray[np.float64]:
    """The prior of a matched text, as ``Artifact.prior_of`` mixes it online: (L, F)."""
    each = np.stack([prior(stats, int(cluster), whole, policy.shrink) for cluster in match.clusters])
    return mix(each, mixture_weights(match.similarities, policy.sharpness))


def choose_k(
    options: Candidates, stats: Statistics, vectors: NDArray[np.float32], shares: Shares, keep: float,
    remember: Remember = forget,
) -> tuple[int, list[dict[str, float]]]:  # fmt: skip
    """The rule above -> which of the options, and the table that it was chosen from."""

    def measure() -> Arrays:
        parts = [stats.part(rows) for rows in options.rows]
        return [np.append(*quality(options.centroids, parts, vectors, shares, keep))]

    *captured, general = remember("choose K", {"keep": keep}, measure)[0].tolist()
    mine = np.array(captured)
    gains = mine - general
    best = int(np.argmax(gains >= ENOUGH * gains.max())) if gains.max() > 0 else 0
    rows = [
        {"clusters": len(centroids), "captured": round(float(value), 4), "global": round(general, 4)}
        for centroids, value in zip(options.centroids, mine, strict=True)
    ]
    return best, rows


def threshold(similarities: NDArray[np.float32]) -> float:
    """The first threshold: only 1 in 20 held-out prompts of the corpus itself matches more weakly."""
    return round(float(np.quantile(similarities, WEAKEST)), 4)
