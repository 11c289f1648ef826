"""PURE: Spearman's rank correlation over pairs of texts, and its interval by drawing texts, not pairs.

Pairs of one text are not independent, so texts are drawn with replacement and a pair counts as often as both its texts
were drawn together; a text makes no pair with its own copy. Shapes: n texts, m = n (n - 1) / 2 pairs.
"""

import numpy as np
from numpy.typing import NDArray

from coreinfer.evaluate.bootstrap import LEVEL
from pipeline.analysis.bits import Floats

DRAWS = 1000


def pairs(texts: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every two of ``texts``, once: places of the first and of the second, (m,) each."""
    first, second = np.triu_indices(texts, 1)
    return first.astype(np.int64), second.astype(np.int64)


class Ranked:
    """Two columns of m values, prepared for correlations under many weights."""

    def __init__(self, x: Floats, y: Floats) -> None:
        self._groups = [np.unique(values, return_inverse=True)[1] for values in (x, y)]

    def spearman(self, weights: Floats) -> float:
        """Of the sample that holds pair i ``weights[i]`` times (m,); nan where either column does not vary.

        Tied values share their mean rank, as is usual.
        """
        x, y = (_ranks(groups, weights) for groups in self._groups)
        total = weights.sum()
        if total <= 0:
            return float("nan")
        x, y = x - weights @ x / total, y - weights @ y / total
        spread = (weights @ x**2) * (weights @ y**2)
        return float(weights @ (x * y) / np.sqrt(spread)) if spread > 0 else float("nan")


def _ranks(groups: NDArray[np.intp], weights: Floats) -> Floats:
    """The rank of each pair in the weighted sample; ``groups`` are the places of the values among the distinct ones."""
    held = np.bincount(groups, weights)
    return np.asarray((np.cumsum(held) - held / 2)[groups])


def spearman(x: Floats, y: Floats, texts: int, seed: int) -> tuple[float, float, float]:
    """Values (m,) of ``pairs(texts)`` -> the correlation and the ends of its 95% interval; nan if it has none."""
    first, second = pairs(texts)
    ranked, rng = Ranked(x, y), np.random.default_rng(seed)
    drawn = np.empty(DRAWS)
    for i in range(DRAWS):
        times = rng.multinomial(texts, np.full(texts, 1 / texts)).astype(np.float64)
        drawn[i] = ranked.spearman(times[first] * times[second])
    drawn = drawn[np.isfinite(drawn)]  # a draw of few texts may not vary
    low, high = np.quantile(drawn, LEVEL) if len(drawn) else (np.nan, np.nan)
    return ranked.spearman(np.ones(len(first))), float(low), float(high)
