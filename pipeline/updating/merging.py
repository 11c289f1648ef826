"""PURE: what a cluster holds, and what new passages add to it. NumPy arrays in, NumPy arrays out.

A cluster's row is not its own mean: it is drawn to the global prior by ``shrink`` passages' worth,

    stored = (n * own + shrink * whole) / (n + shrink)

so n * own = (n + shrink) * stored - shrink * whole, to which the sum of the m new passages' shares is added, and the
result is drawn to the new global prior. In exact numbers that is the row of one build over all n + m passages.

Rows are stored rounded to 12 significant bits. An own mean alone would be off by (n + shrink) / n times that, but here
it counts n / (n + m + shrink) again, so that a merged value is off by no more than ``bound``: as if some more roundings
of its size, and of what the global prior has in it, had been made. ``whole`` is the mean of the clusters' rows
(``coreinfer.upkeep.verifying.global_mean``), not the stored global prior: then the rows of an updated artifact come to
its global prior as exactly as a build's do, however often it is updated.
"""

import numpy as np
from numpy.typing import NDArray

from coreinfer.neurons import Floats, share
from coreinfer.upkeep.verifying import STEP
from pipeline.data import QUANTILES

ROUNDINGS = 6  # three of them are the old row's, the new row's and the sum's; a small cluster's shrinkage can add three


def merged_whole(whole: Floats, passages: int, added: Floats, count: int) -> NDArray[np.float64]:
    """The global prior (L, F) of ``passages``, and the sum of the shares of ``count`` more, (L, F) -> that of all."""
    return share(passages * np.asarray(whole, np.float64) + added)


def merged(
    stored: Floats, passages: int, added: Floats, count: int, whole: Floats, whole_now: Floats, shrink: float
) -> NDArray[np.float64]:
    """A cluster's row (L, F) of ``passages``, and the sum of the shares of ``count`` more -> its row now.

    ``whole`` and ``whole_now``: the global prior before and now, (L, F).
    """
    own = np.maximum((passages + shrink) * np.asarray(stored, np.float64) - shrink * whole, 0)  # below 0: rounding
    return share((own + added + shrink * whole_now) / (passages + count + shrink))


def bound(exact: Floats, whole: Floats, total: int, shrink: float) -> NDArray[np.float64]:
    """The most that a merged row (L, F) of ``total`` passages, stored, is off from ``exact``, for each neuron.

    ``whole``: the larger of the global prior before and now. Another update of the result may add as much again.
    """
    return np.asarray(ROUNDINGS * STEP * (exact + shrink / (total + shrink) * whole))


def moved(
    centroids: NDArray[np.float32], quantiles: NDArray[np.float32], sizes: NDArray[np.int64], sums: Floats
) -> NDArray[np.float32]:
    """Centroids (K, d) at the mean of their old and new members; ``sums`` (K, d) of the new ones' vectors.

    The mean of unit vectors is as long as their mean similarity to its direction, which the quantiles (K, 5) hold, so
    ``sizes`` (K,) old members sum to that times their number, along the old centroid.
    """
    means = np.array([_even(row.astype(np.float64), 401).mean() for row in quantiles])
    whole = (sizes * np.maximum(means, 0))[:, None] * centroids.astype(np.float64) + sums
    lengths = np.linalg.norm(whole, axis=1, keepdims=True)
    there = np.where(lengths > 1e-6, whole / np.maximum(lengths, 1e-6), centroids)  # members may cancel out
    still = (sums == 0).all(1, keepdims=True)
    return np.where(still, centroids, there).astype(np.float32)


def merged_quantiles(
    stored: NDArray[np.float32], passages: int, turned: float, similarities: NDArray[np.float32]
) -> NDArray[np.float32]:
    """A cluster's five quantiles of ``passages``, and new members' similarities (m,) -> those of all, (5,).

    ``turned``: the cosine between the centroid before and now, by which the old members' similarities are taken to
    have shrunk: so they have on average, where what they hold beside the centroid has no direction. Between the five,
    and a little beyond the outer two, the old members are taken as evenly spread, which is all that is known of them;
    the new ones count as they are.
    """
    if not len(similarities):
        return stored
    old = turned * _even(stored.astype(np.float64), 4 * passages + 1)
    values = np.concatenate([old, similarities.astype(np.float64)])
    weights = np.concatenate([np.full(len(old), passages / len(old)), np.ones(len(similarities))])
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    middles = (np.cumsum(weights) - weights / 2) / weights.sum()
    return np.asarray(np.clip(np.interp(QUANTILES, middles, values), -1, 1), np.float32)


def _even(quantiles: NDArray[np.float64], wanted: int) -> NDArray[np.float64]:
    """Up to 401 values that have these quantiles, (n,): by straight lines, the outer ones going on."""
    count = min(wanted, 401)
    places = (np.arange(count) + 0.5) / count
    low, high = quantiles[1] - quantiles[0], quantiles[4] - quantiles[3]
    ends = [quantiles[0] - low * QUANTILES[0] / (QUANTILES[1] - QUANTILES[0]), *quantiles]
    ends.append(quantiles[4] + high * (1 - QUANTILES[4]) / (QUANTILES[4] - QUANTILES[3]))
    return np.asarray(np.clip(np.interp(places, [0.0, *QUANTILES, 1.0], ends), -1, 1))


def merged_terms(old: list[str], passages: int, new: list[str], count: int, most: int = 8) -> list[str]:
    """A cluster's terms: the new passages' best take the last places, as many as they are of all.

    The old texts are not stored, so that terms of all of them cannot be counted again.
    """
    fresh = [term for term in new if term not in old][: round(most * count / (passages + count))]
    return [*old[: most - len(fresh)], *fresh]
