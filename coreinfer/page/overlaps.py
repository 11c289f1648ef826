"""How much the core sets of clusters overlap: between every two of them, and layer by layer."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact

MOST = 128  # clusters compared: a matrix of more says nothing to the eye


def overlaps(artifact: Artifact, groups: NDArray[np.int64] | None = None) -> dict[str, Any]:
    """Of the largest clusters' core sets at the default keep, by neighbourhood if ``groups`` (K,) is given.

    ``clusters`` (n,): their numbers in the matrix's order. ``matrix`` (n, n): share of neurons in common, the mean over
    layers; 1 on the diagonal. ``layers``: ``mean``, ``least`` and ``most`` over all pairs, of each layer. ``chance``
    (L,): what unrelated sets would share.
    """
    chosen = np.argsort(-artifact.sizes, kind="stable")[:MOST]
    chosen = chosen[np.lexsort((-artifact.sizes[chosen], groups[chosen]))] if groups is not None else chosen
    keep, made = artifact.manifest.default_keep, artifact.manifest
    masks = np.stack([artifact.core(artifact.prior(int(c)), keep).mask() for c in chosen])
    budgets = artifact.budgets(keep)
    shared = np.stack([_shared(masks[:, layer], int(budgets[layer])) for layer in range(made.layers)])
    return {
        "keep": keep,
        "clusters": chosen.tolist(),
        "matrix": shared.mean(0).round(3).tolist(),
        "layers": [_spread(layer) for layer in shared],
        "chance": (budgets / made.width).round(4).tolist(),
    }


def _shared(masks: NDArray[np.bool_], kept: int) -> NDArray[np.float64]:
    """Masks (n, F) of ``kept`` neurons each -> the share in common of every two, (n, n)."""
    each = masks.astype(np.float32)  # counts are exact below 2^24
    return np.asarray(each @ each.T / kept, np.float64)


def _spread(shared: NDArray[np.float64]) -> dict[str, float]:
    """Over all pairs; of one cluster alone, itself."""
    pairs = shared[np.triu_indices(len(shared), 1)] if len(shared) > 1 else shared.ravel()
    return {name: round(float(value), 4) for name, value in
            (("mean", pairs.mean()), ("least", pairs.min()), ("most", pairs.max()))}  # fmt: skip
