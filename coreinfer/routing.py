"""Only "which cluster": for whoever has a model for each of some clusters and picks one per prompt.

No language model is loaded. A server of one's own keeps a ``Router`` and calls ``route``, or ``row_of`` for JSON.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.belonging import check_identity, named_by_artifact
from coreinfer.calibrated import knows_threshold
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.match import Match, make_index, nearest
from coreinfer.prompts import Prompt, words_of


@dataclass(frozen=True)
class Route:
    """Where a prompt belongs. ``strong``: whether the similarity reaches the artifact's threshold; below it, no cluster
    fits, and the dense model is the safe choice. ``calibrated``: whether that threshold is. ``margin``: how much nearer
    than the next one the cluster is.
    """

    cluster: int
    similarity: float
    margin: float
    strong: bool
    terms: tuple[str, ...]
    calibrated: bool = True


class Router:
    """The embedder and the clusters, or those ``among`` them that there are models for.

    Raises:
        CoreInferError: another embedder than the artifact's, or a cluster that it does not have.
    """

    def __init__(
        self, artifact: Artifact, embedder: str | None = None, among: Sequence[int] | None = None, device: str = "cpu"
    ) -> None:
        self.artifact = artifact
        every = artifact.manifest.clusters
        self.among = np.array(range(every) if among is None else sorted(set(among)), np.int64)
        if not len(self.among) or self.among[0] < 0 or self.among[-1] >= every:
            raise CoreInferError(f"to choose among the clusters {list(among or ())}: give some of 0 to {every - 1}")
        with named_by_artifact(artifact.root, "embedder", embedder):
            self.embedder = Embedder(embedder or artifact.manifest.embedder.id, device)
        check_identity("embedder", self.embedder.identity, artifact.manifest.embedder)
        self._index = make_index(artifact.centroids[self.among])

    def route(self, prompts: Sequence[Prompt]) -> list[Route]:
        """Each prompt's cluster; they are embedded in batches.

        Raises:
            CoreInferError: an empty prompt.
        """
        found = nearest(self._index, self.embedder.embed_each([words_of(prompt) for prompt in prompts]), 2)
        return [route_of(self.artifact, match, int(self.among[match.cluster])) for match in found]


def route_of(artifact: Artifact, match: Match, cluster: int) -> Route:
    """A match's route to one of the artifact's clusters."""
    is_strong, terms = match.similarity >= artifact.policy.threshold, tuple(artifact.terms[cluster][:8])
    return Route(cluster, match.similarity, match.margin, is_strong, terms, knows_threshold(artifact.calibration))


def row_of(route: Route, folders: dict[int, str] | None = None) -> dict[str, Any]:
    """A route as a JSON object; ``folders``: where each cluster's model lies, and under -1 the global prior's, which
    weak prompts get if it is there.
    """
    row: dict[str, Any] = {
        "cluster": route.cluster, "similarity": round(route.similarity, 6), "margin": round(route.margin, 6),
        "strong": route.strong, "calibrated": route.calibrated, "terms": list(route.terms),
    }  # fmt: skip
    if folders is None:
        return row
    nearest = folders[route.cluster]
    return row | {"model": nearest if route.strong else folders.get(GLOBAL, nearest)}
