"""PURE: a match -> what is known of the prediction before prefill, and the function that finishes it after."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact
from coreinfer.match import Match
from coreinfer.neurons import every
from coreinfer.policy import Prediction, choose, score
from coreinfer.settings import Policy

Decide = Callable[[NDArray[np.float64] | None, int], Prediction]  # of a prompt's statistic and its number of tokens


def plan(artifact: Artifact, match: Match, policy: Policy, keep: float) -> tuple[Prediction, Decide]:
    """The prediction as far as it is known: with its neurons where no statistic of the prompt is needed."""
    source, reason = choose(match, policy, artifact.policy)
    keep = 1.0 if source == "dense" else keep
    needs_prior = source in ("similarity", "hybrid")
    prior = artifact.prior_of(match.clusters, match.similarities) if needs_prior else None

    made = Prediction(policy, source, match.cluster, match.similarity, artifact.policy.threshold, reason, keep)

    def decide(shares: NDArray[np.float64] | None, tokens: int) -> Prediction:
        worth = artifact.worth(source, match.similarity, prior, shares, tokens)
        neurons = artifact.core(score(source, prior, shares, tokens, worth), keep)
        doubted = source == "hybrid" and worth < artifact.policy.n0_at(match.similarity) / 2
        but = "; but the prompt's own neurons are others, so it counts less" if doubted else ""
        return replace(made, neurons=neurons, worth=worth, reason=reason + but)

    if source == "dense":
        return replace(made, neurons=every(artifact.manifest.layers, artifact.manifest.width)), decide
    return decide(None, 0) if source == "similarity" else made, decide
