"""PURE: a match and a prompt statistic -> the neuron set, with the reason for it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coreinfer.match import Match
from coreinfer.neurons import NeuronSet, blend
from coreinfer.settings import Policy, PolicySettings, Source


@dataclass(frozen=True)
class Prediction:
    """Which neurons a prompt needs, and why. ``policy`` was asked for, ``source`` was used.

    ``neurons`` is None while the set waits for the prompt's prefill (``stability`` and ``hybrid`` before it ran). So is
    ``worth``: how many prompt tokens the clusters counted for, infinity for ``similarity``.
    """

    policy: Policy
    source: Source
    cluster: int
    similarity: float
    threshold: float
    reason: str
    keep: float
    neurons: NeuronSet | None = None
    worth: float | None = None


def choose(match: Match, policy: Policy, settings: PolicySettings, calibrated: bool = True) -> tuple[Source, str]:
    """Which source serves this prompt, and the reason in words, also that the threshold was not ``calibrated``. Only
    ``auto`` falls back on a weak match.
    """
    said = f"similarity {match.similarity:.3f} to cluster {match.cluster}"
    guess = "" if calibrated else ", which was not calibrated"
    if policy != "auto":
        weak = f" (a weak match, below the threshold{guess})" if match.similarity < settings.threshold else ""
        return policy, f"{policy} was asked for; {said}{weak}"
    if match.similarity < settings.threshold:
        return "stability", f"weak match: {said} is below the threshold {settings.threshold:.3f}{guess}"
    if settings.auto == "hybrid" and match.similarity < settings.strong:
        return "hybrid", f"fair match: {said} lies between {settings.threshold:.3f} and {settings.strong:.3f}{guess}"
    return settings.auto, f"match: {said} reaches the threshold {settings.strong:.3f}{guess}"


def score(
    source: Source,
    prior: NDArray[np.float64] | None,
    prompt: NDArray[np.float64] | None,
    prompt_tokens: int,
    n0: float,
) -> NDArray[np.float64]:
    """The formula of the project, (L, F): similarity is n0 = infinity, stability is n0 = 0."""
    if source == "similarity":
        assert prior is not None
        return prior
    assert prompt is not None
    if source == "stability":
        return prompt
    assert prior is not None
    return blend(prompt, prior, prompt_tokens, n0)
