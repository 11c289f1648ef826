"""The policies' numbers, each by the loss that it costs on held-out texts."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact
from coreinfer.settings import PolicySettings, Source

MIXTURES = ((1, 12.0), (4, 6.0), (4, 12.0), (8, 12.0), (16, 6.0), (16, 12.0), (16, 24.0))  # (m, sharpness)
N0 = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
WORTH = (0.0, 1 / 16, 1 / 4, 1 / 2, 1.0)  # shares of n0 that a weaker match may be worth
NO_DOUBT = 1e-4  # a usual doubt is more: readers divide by it
UNUSUAL = 0.05  # of the corpus's own prompts
CLOSE = 0.02  # of the least cost: ramps that differ by less are alike
SAME = 0.002  # nats: a simpler choice is kept unless another is better by more, and the noise is of this size


def with_policy(artifact: Artifact, **numbers: object) -> Artifact:
    """The artifact with other numbers in its policy."""
    return replace(artifact, policy=replace(artifact.policy, **numbers))  # type: ignore[arg-type]


def mixtures(artifact: Artifact) -> list[Artifact]:
    """The artifact under each mixture worth trying."""
    pairs = [(m, s) for m, s in MIXTURES if m <= len(artifact.centroids)]
    return [with_policy(artifact, mixture=m, sharpness=s) for m, s in pairs]


def sources(artifact: Artifact) -> list[tuple[Artifact, Source]]:
    """What a strong match may use: hybrid with each n0, and similarity."""
    return [*((with_policy(artifact, n0=n0), "hybrid") for n0 in N0), (artifact, "similarity")]


def best(costs: NDArray[np.float64], first: int = 0) -> int:
    """The column of least mean cost; ``first`` unless another is better by more than ``SAME``."""
    means = costs.mean(0)
    least = int(means.argmin())
    return least if means[first] - means[least] > SAME else first


def doubts(long: Sequence[float], short: Sequence[float], times: float) -> tuple[float, float]:
    """(doubt, doubt_fall) of prompts of ``DOUBT_TOKENS`` tokens and of prompts ``times`` shorter: how the median grows
    as prompts shorten, and what all but ``UNUSUAL`` of both stay below.
    """
    middle, later = max(float(np.median(long)), NO_DOUBT), max(float(np.median(short)), NO_DOUBT)
    fall = max(0.0, float(np.log(later / middle) / np.log(times)))
    both = np.concatenate([np.asarray(long), np.asarray(short) / times**fall])
    return round(max(NO_DOUBT, float(np.quantile(both, 1 - UNUSUAL))), 5), round(fall, 4)


def threshold(similarities: NDArray[np.floating], match: NDArray[np.floating], fallback: NDArray[np.floating]) -> float:
    """The similarity from which the match's set costs no more than the fallback's, over all observations (n,).

    Of all ways to cut the observations in two by similarity, the one with the least total cost; halfway between the
    two neighbours of the cut. What is weaker than all that was seen falls back.
    """
    order = np.argsort(similarities, kind="stable")
    gain = (match - fallback)[order]  # of falling back
    saved = np.concatenate([[0.0], np.cumsum(gain)])  # by falling back for so many of the weakest
    cut = int(saved.argmax())
    near = similarities[order]
    edge = near[0] if cut == 0 else near[-1] if cut == len(near) else (near[cut - 1] + near[cut]) / 2
    return round(float(edge) + (1e-4 if cut == len(near) else 0.0), 4)


def ramp(near: NDArray[np.floating], costs: NDArray[np.float64], worth: Sequence[float]) -> tuple[float, float]:
    """(threshold, strong) between which the prior's worth grows from nothing to all, by the least total cost.

    ``near`` (n,): similarities; ``costs`` (n, w): what each observation costs when the prior is worth so much of n0;
    ``worth`` (w,) rises from 0 to 1, and costs are taken as linear between its values. Every pair of quantiles of the
    similarities is tried, and one above them all, with which everything falls back. Of those that cost hardly more than
    the least, the highest threshold: what owes nothing to the clusters should say so.
    """
    edges = np.unique(np.quantile(near, np.linspace(0, 1, 25)).round(4))
    pairs = [(low, high) for i, low in enumerate(edges) for high in edges[i:]] + [(edges[-1] + 1e-4,) * 2]
    totals = np.array([_ramped(near, costs, worth, *pair).mean() for pair in pairs])
    alike = np.flatnonzero(totals <= totals.min() + CLOSE * abs(totals.min()))
    low, high = max((pairs[i][0], -totals[i], pairs[i][1]) for i in alike)[::2]
    return round(float(low), 4), round(float(high), 4)


def _ramped(
    near: NDArray[np.floating], costs: NDArray[np.float64], worth: Sequence[float], low: float, high: float
) -> NDArray[np.float64]:
    """What each observation costs under one ramp, (n,)."""
    settings = PolicySettings(threshold=low, strong=high, n0=1.0)
    return np.array([np.interp(settings.n0_at(s), worth, row) for s, row in zip(near, costs, strict=True)])


def skips(clusters: int, mixture: int) -> list[int]:
    """How many nearest clusters to leave out, to stand for prompts that match ever more weakly."""
    most = max(0, clusters - mixture)
    return sorted({min(most, round(clusters * part)) for part in (0.0, 0.06, 0.2, 0.5, 1.0)})
