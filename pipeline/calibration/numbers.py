"""The policies' numbers, each by the loss that it costs on held-out texts."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact
from coreinfer.settings import Source

MIXTURES = ((1, 12.0), (4, 6.0), (4, 12.0), (8, 12.0), (16, 6.0), (16, 12.0), (16, 24.0))  # (m, sharpness)
N0 = (32.0, 64.0, 128.0, 256.0, 512.0, 1024.0)
SAME = 0.002  # nats: a simpler choice is kept unless another is better by more, and the noise is of this size


def with_policy(artifact: Artifact, **numbers: object) -> Artifact:
    """The artifact with other numbers in its policy."""
    return replace(artifact, policy=replace(artifact.policy, **numbers))  # type: ignore[arg-type]


def mixtures(artifact: Artifact) -> list[Artifact]:
    """The artifact under each mixture worth trying."""
    pairs = [(m, s) for m, s in MIXTURES if m <= len(artifact.centroids)]
    return [with_policy(artifact, mixture=m, sharpness=s) for m, s in pairs]


def sources(artifact: Artifact) -> list[tuple[Artifact, Source]]:
    """What a strong match may use: similarity, and hybrid with each n0."""
    return [(artifact, "similarity"), *((with_policy(artifact, n0=n0), "hybrid") for n0 in N0)]


def best(costs: NDArray[np.float64], first: int = 0) -> int:
    """The column of least mean cost; ``first`` unless another is better by more than ``SAME``."""
    means = costs.mean(0)
    least = int(means.argmin())
    return least if means[first] - means[least] > SAME else first


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


def skips(clusters: int, mixture: int) -> list[int]:
    """How many nearest clusters to leave out, to stand for prompts that match ever more weakly."""
    most = max(0, clusters - mixture)
    return sorted({min(most, round(clusters * part)) for part in (0.0, 0.06, 0.2, 0.5, 1.0)})
