"""PURE: a match -> what is known of the prediction before prefill, finished by the prompt's statistic after it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact
from coreinfer.calibrated import knows_threshold
from coreinfer.match import Match
from coreinfer.neurons import NeuronSet, every
from coreinfer.policy import Prediction, choose, score
from coreinfer.settings import BY_CLUSTER, Policy

Shares = NDArray[np.float64]


@dataclass
class Planned:
    """``prediction`` as far as it is known; it has its neurons from the start where no statistic is needed for them."""

    prediction: Prediction
    _decide: Callable[[Shares | None, int], Prediction]

    @property
    def wanted(self) -> "NeuronSet | Callable[[Shares, int], NeuronSet]":
        """The neurons, or the function that a prefill calls with the prompt's statistic."""
        return self.prediction.neurons or self.finish

    def finish(self, shares: Shares | None, tokens: int) -> NeuronSet:
        """By a prompt's statistic (L, F) over so many tokens."""
        self.prediction = self._decide(shares, tokens)
        assert self.prediction.neurons is not None
        return self.prediction.neurons


def plan(artifact: Artifact, match: Match, policy: Policy, keep: float) -> Planned:
    """What an artifact says to a match."""
    source, reason = choose(match, policy, artifact.policy, knows_threshold(artifact.calibration))
    keep = 1.0 if source == "dense" else keep
    prior = artifact.prior_of(match.clusters, match.similarities) if source in BY_CLUSTER else None
    made = Prediction(policy, source, match.cluster, match.similarity, artifact.policy.threshold, reason, keep)

    def decide(shares: Shares | None, tokens: int) -> Prediction:
        worth = artifact.worth(source, match.similarity, prior, shares, tokens)
        neurons = artifact.core(score(source, prior, shares, tokens, worth), keep)
        doubted = source == "hybrid" and worth < artifact.policy.n0_at(match.similarity) / 2
        but = "; but the prompt's own neurons are others, so it counts less" if doubted else ""
        return replace(made, neurons=neurons, worth=worth, reason=reason + but)

    planned = Planned(made, decide)
    if source == "similarity":
        planned.finish(None, 0)
    if source == "dense":
        planned.prediction = replace(made, neurons=every(artifact.manifest.layers, artifact.manifest.width))
    return planned
