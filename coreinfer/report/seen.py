"""All that a report shows of an artifact, gathered once: plain numbers and texts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.artifact import Artifact
from coreinfer.page.compare import compare
from coreinfer.page.overlaps import overlaps
from coreinfer.page.overview import overview

if TYPE_CHECKING:
    from coreinfer.engine import Engine

MOST_IDS = 200_000  # neuron ids of a prompt that a page holds: a megabyte


@dataclass(frozen=True)
class Seen:
    """``overview`` and ``overlaps`` are those of ``coreinfer.page``; of each prompt, where it lands and its neurons."""

    overview: dict[str, Any]
    overlaps: dict[str, Any]
    prompts: list[dict[str, Any]]


def look_at(artifact: Artifact, prompts: list[dict[str, Any]]) -> Seen:
    """Some seconds for 128 clusters, most of them for the map."""
    shown = overview(artifact)
    groups = np.array([cluster["group"] for cluster in shown["clusters"]])
    return Seen(shown, overlaps(artifact, groups), prompts)


def landed(engine: "Engine", texts: Sequence[str], keep: float | None) -> list[dict[str, Any]]:
    """Where each prompt lands, and which neurons it needs; a prefill for each where its source needs one.

    Raises:
        CoreInferError: a prompt that is empty or too long, or a model that is not the artifact's.
    """
    made = []
    for text, match in zip(texts, engine.match(list(texts)), strict=True):
        found = engine.predict(text, "auto", keep, match)
        assert found.neurons is not None
        many = sum(found.neurons.per_layer) > MOST_IDS
        near = zip(match.clusters.tolist(), match.similarities.tolist(), strict=True)
        made.append({
            "prompt": text,
            "source": found.source,
            "cluster": found.cluster,
            "similarity": found.similarity,
            "threshold": found.threshold,
            "strong": engine.artifact.policy.strong,
            "reason": found.reason,
            "keep": found.keep,
            "nearest": [{"cluster": cluster, "similarity": round(value, 4)} for cluster, value in near],
            "compare": compare(engine.artifact, found),
            "neurons": None if many else [ids.tolist() for ids in found.neurons.layers],
        })  # fmt: skip
    return made
