"""Which neurons an export keeps: a cluster's, a prompt's, or a set of a file."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.export.bits import SetFile
from coreinfer.neurons import NeuronSet
from coreinfer.wording import shortened

if TYPE_CHECKING:
    from coreinfer.engine import Engine
    from coreinfer.prompts import Prompt
    from coreinfer.settings import Policy


@dataclass(frozen=True)
class Chosen:
    """A set of an export. ``name``: of its folder among others; ``cluster``: None for a prompt's; ``why``: in words;
    ``keep``: that was asked for.
    """

    name: str
    cluster: int | None
    neurons: NeuronSet
    keep: float
    why: str
    terms: tuple[str, ...] = ()


def uniform(artifact: Artifact) -> Artifact:
    """The same, with the same number of neurons in each layer at every keep, whatever calibration found best."""
    made = artifact.manifest
    return replace(artifact, budget_grid=np.array([1.0]), budget_table=np.full((1, made.layers), float(made.width)))


def check_clusters(artifact: Artifact, clusters: Sequence[int]) -> None:
    """
    Raises:
        CoreInferError: a number that no cluster has.
    """
    for cluster in clusters:
        artifact.prior(cluster)


def of_clusters(artifact: Artifact, clusters: Sequence[int], keep: float) -> Iterator[Chosen]:
    """What each cluster's prior picks by itself: the neurons of ``similarity`` where one cluster is the whole match.

    Raises:
        CoreInferError: a number that no cluster has.
    """
    for cluster in clusters:
        neurons = artifact.core(artifact.prior(cluster), keep)
        if cluster == GLOBAL:
            yield Chosen("global", cluster, neurons, keep, "the global prior (the mean of all clusters)")
        else:
            terms = tuple(artifact.terms[cluster][:8])
            why = f"cluster {cluster} ({artifact.sizes[cluster]:,} passages)"
            yield Chosen(f"cluster-{cluster}", cluster, neurons, keep, why, terms)


def of_prompt(engine: "Engine", prompt: "Prompt", policy: "Policy", keep: float) -> Chosen:
    """What a prompt needs, by any policy; a prefill runs where that needs one."""
    made = engine.predict(prompt, policy, keep)
    assert made.neurons is not None
    said = shortened(str(prompt), 72)
    why = f"the prompt {said!r} by {made.source} ({made.reason})"
    return Chosen("prompt", None, made.neurons, made.keep, why, tuple(engine.artifact.terms[made.cluster][:8]))


def of_file(sets: SetFile, numbers: Sequence[int]) -> Iterator[Chosen]:
    """Sets of a file, by their numbers.

    Raises:
        CoreInferError: a number that no set has.
    """
    for number in numbers:
        neurons = sets.read(number)
        yield Chosen(f"cluster-{number}", number, neurons, neurons.keep, f"set {number} of {sets.path.name}")


def check_choice(clusters: Sequence[int], prompt: str | None, every: bool, policy: str, models: bool) -> None:
    """
    Raises:
        CoreInferError: more than one choice, none where models are made, or a policy that needs another.
    """
    given = {"--cluster": bool(clusters), "--prompt": prompt is not None, "--all": every}
    named = [name for name, is_given in given.items() if is_given]
    if len(named) > 1:
        raise CoreInferError(f"{' and '.join(named)} all say which neurons to keep: give one of them")
    if models and not named:
        raise CoreInferError("nothing says which neurons to keep: give --cluster C, --prompt TEXT or --all")
    if policy not in ("auto", "similarity") and prompt is None:
        raise CoreInferError(
            f"--policy {policy} takes neurons from a prompt, and there is none: give --prompt TEXT, or leave it out"
        )
    if len(set(clusters)) < len(clusters):
        raise CoreInferError(f"--cluster is given as {', '.join(map(str, clusters))}: give each once")
