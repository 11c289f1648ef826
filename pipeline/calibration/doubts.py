"""The usual doubt: how far prompts of the corpus's kind disagree with their matches.

It is seen in what the prompts use, without any loss: a handful of texts, whose losses would choose by chance, can say
it. What they say is a rough number, but one that guards: without it, only a weak match falls back.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.artifact import Artifact
from coreinfer.calibrated import FEW
from coreinfer.settings import PolicySettings
from coreinfer.threads import running_on
from pipeline.calibrate import WEAKEST, threshold
from pipeline.calibration import numbers
from pipeline.calibration.sample import Lab, cases

PROMPTS = (64, 16)  # tokens
REST = 2  # tokens after a prompt that ``Truth`` needs, though nothing is made of them here
NEEDED = max(PROMPTS) + REST
RULE = f"quantile {WEAKEST} of held-out similarities to all clusters, not to the nearest alone"
Tick = Callable[[int], Any]


def usual_doubt(
    lab: Lab, artifact: Artifact, ids: Tensor, tick: Tick = lambda n: None
) -> tuple[Artifact, dict[str, Any], NDArray[np.float32]]:
    """The artifact with the doubt of the texts ``ids`` (n, ``NEEDED`` or more), what it was seen from, and how similar
    the longer prompts are to each cluster, nearest first, (n, K).
    """
    found, near = [list[float]() for _ in PROMPTS], list[NDArray[np.float32]]()
    for prompt_tokens, some in zip(PROMPTS, found, strict=True):
        for case in cases(lab, ids[:, : prompt_tokens + REST], prompt_tokens):
            some += case.doubts(artifact)
            near.append(case.similarities)
            tick(len(case.clusters))
    doubt, fall = numbers.doubts(found[0], found[1], PROMPTS[0] / PROMPTS[1])
    medians = [round(float(np.median(some)), 5) for some in found]
    facts = {"prompt_tokens": list(PROMPTS), "median": medians}
    return numbers.with_policy(artifact, doubt=doubt, doubt_fall=fall), facts, np.concatenate(near)[: len(ids)]


def from_few(lab: Lab, ids: Tensor, tick: Tick = lambda n: None) -> tuple[PolicySettings, dict[str, Any]]:
    """The policy of ``lab.artifact`` with the usual doubt, and evidence. Where doubt guards, a match weaker than the
    corpus's own is no reason to fall back: only one that is farther than its prompts are from almost any cluster. Where
    even that is seen in too few similarities, the first threshold stays if it is lower.
    """
    with running_on(threads=1):  # some processors' sums depend on it, in their last bits; for so few texts it is cheap
        artifact, facts, near = usual_doubt(lab, lab.artifact, ids, tick)
    rule, weakest = artifact.calibration.get("threshold_rule"), threshold(near.ravel())
    if near.size >= FEW or weakest < artifact.policy.threshold:
        artifact, rule = numbers.with_policy(artifact, threshold=weakest, strong=weakest), RULE
    return artifact.policy, {"threshold_rule": rule, "measured": {"texts": len(ids), "doubts": facts}}
