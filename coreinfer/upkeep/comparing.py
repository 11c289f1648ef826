"""What sets two artifacts apart, as facts: plain numbers and texts, ready for JSON.

Cluster ids mean nothing outside their artifact, so a cluster of the first is held against the nearest of the second.
Where the models differ, no neuron of one is a neuron of the other; where the embedders do, no similarity compares.
"""

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.manifest import ModelIdentity
from coreinfer.match import make_index, nearest
from coreinfer.neurons import NeuronSet
from coreinfer.wording import flat

LISTED = 10  # clusters whose sizes changed most
BY_SIMILARITY = ("threshold", "strong", "sharpness", "mixture")  # numbers of a policy that are about cosines
Facts = dict[str, Any]


def differences(a: Artifact, b: Artifact) -> Facts:
    """All that differs; parts that cannot be compared are None, and ``left_out`` says why."""
    model, embedder = _same(a.manifest.model, b.manifest.model), _same(a.manifest.embedder, b.manifest.embedder)
    pairs = matched(a, b) if embedder else None
    left = [] if model else ["neurons, layer budgets and calibration: the models differ"]
    left += [] if embedder else ["clusters and similarities: the embedders differ"]
    kinds = a.manifest.statistic.kind, b.manifest.statistic.kind
    if model and kinds[0] != kinds[1]:
        left.append(f"the priors' distance: one holds {kinds[0]}, the other {kinds[1]}")
    return {
        "a": str(a.root), "b": str(b.root), "same_model": model, "same_embedder": embedder, "left_out": left,
        "manifest": _fields(a, b),
        "clusters": None if pairs is None else _clusters(a, b, pairs),
        "neurons": _neurons(a, b, pairs) if model else None,
        "calibration": _calibration(a, b, embedder) if model else None,
        "budgets": _budgets(a, b) if model else None,
    }  # fmt: skip


def _same(a: ModelIdentity, b: ModelIdentity) -> bool:
    """Whether both are one model, by whatever name and in whatever dtype."""
    return (a.weights, a.setup) == (b.weights, b.setup)


def matched(a: Artifact, b: Artifact) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]:
    """For each cluster of a, (Ka,): the nearest of b, their cosine similarity, and whether it is b's nearest too."""
    there = nearest(make_index(b.centroids), a.centroids, 1)
    back = np.array([match.cluster for match in nearest(make_index(a.centroids), b.centroids, 1)])
    partner = np.array([match.cluster for match in there])
    similarity = np.array([match.similarity for match in there], np.float32)
    return partner, similarity, back[partner] == np.arange(len(partner))


def _fields(a: Artifact, b: Artifact) -> list[Facts]:
    """Fields of the manifests with other values, the files' sizes and hashes left out; nested ones by a dotted name."""
    old, new = (flat({**asdict(one.manifest), "files": {}}) for one in (a, b))
    names = [*old, *(name for name in new if name not in old)]
    return [{"field": n, "a": old.get(n), "b": new.get(n)} for n in names if old.get(n) != new.get(n)]


def _clusters(a: Artifact, b: Artifact, pairs: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]) -> Facts:
    partner, similarity, mutual = pairs
    shares = a.sizes / a.sizes.sum(), b.sizes / b.sizes.sum()
    moved = np.abs(shares[1][partner] - shares[0]) * mutual
    rows = [
        {"a": int(c), "b": int(partner[c]), "similarity": _short(similarity[c]), "terms": a.terms[c],
         "size_a": int(a.sizes[c]), "size_b": int(b.sizes[partner[c]])}
        for c in np.argsort(-moved, kind="stable")[:LISTED] if moved[c] > 0
    ]  # fmt: skip
    spread = np.quantile(similarity, (0, 0.05, 0.5, 0.95, 1))
    return {
        "a": len(a.centroids), "b": len(b.centroids), "mutual": int(mutual.sum()),
        "similarity": dict(zip(("least", "q05", "median", "q95", "most"), map(_short, spread), strict=True)),
        "passages_moved": _short(moved.sum() / 2), "sizes": rows,
    }  # fmt: skip


def _neurons(a: Artifact, b: Artifact, pairs: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None) -> Facts:
    """Total variation between the global priors, per layer: 0 is equal, 1 is nothing in common. And core sets."""
    comparable = a.manifest.statistic == b.manifest.statistic
    apart = np.abs(a.prior(GLOBAL) - b.prior(GLOBAL)).sum(1) / 2
    out: Facts = {"global_distance": list(map(_short, apart)) if comparable else None}
    out["global_core_overlap"] = list(map(_short, _overlaps(a.core_set(GLOBAL), b.core_set(GLOBAL))))
    if pairs is not None:
        found = [_overlaps(a.core_set(c), b.core_set(int(other))) for c, other in enumerate(pairs[0])]
        each, layers = np.mean(found, 1), np.mean(found, 0)
        out["core_overlap"] = {
            "mean": _short(each.mean()),
            "least": _short(each.min()),
            "layers": list(map(_short, layers)),
        }
    return out


def _overlaps(a: NeuronSet, b: NeuronSet) -> list[float]:
    """Neurons that both keep, as a share of those that either does, in each layer."""
    both, either = a.mask() & b.mask(), a.mask() | b.mask()
    return list(both.sum(1) / np.maximum(either.sum(1), 1))


def _calibration(a: Artifact, b: Artifact, similarities: bool) -> Facts:
    old, new = asdict(a.policy), asdict(b.policy)
    names = [n for n in old if old[n] != new[n] and (similarities or n not in BY_SIMILARITY)]
    curves = [{row["keep"]: row["rise"] for row in one.calibration.get("curve", [])} for one in (a, b)]
    only = [name for name, mine, other in (("a", *curves), ("b", *curves[::-1])) if mine and not other]
    shared = [keep for keep in curves[0] if keep in curves[1] and curves[0][keep] != curves[1][keep]]
    return {
        "policy": [{"number": n, "a": old[n], "b": new[n]} for n in names],
        "curve": [{"keep": keep, "a": curves[0][keep], "b": curves[1][keep]} for keep in shared],
        "curve_only_in": only[0] if only else None,
    }


def _budgets(a: Artifact, b: Artifact) -> Facts:
    """The most neurons of a layer that one keeps and the other does not, over both grids; and at a's default keep."""
    keeps = sorted({*a.budget_grid.tolist(), *b.budget_grid.tolist()})
    apart = [int(np.abs(a.budgets(keep) - b.budgets(keep)).max()) for keep in keeps]
    keep = a.manifest.default_keep
    return {
        "most": max(apart), "most_at_keep": keeps[int(np.argmax(apart))], "keep": keep,
        "a": a.budgets(keep).tolist(), "b": b.budgets(keep).tolist(),
        "weights_differ": not np.array_equal(a.sensitivity, b.sensitivity),
    }  # fmt: skip


def _short(value: Any) -> float:
    return round(float(value), 5)
