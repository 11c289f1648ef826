"""A prompt's neurons beside its cluster's core, in numbers that a heat map can show.

A layer's neurons have no order of their own. Here they stand in that of the global prior, from the most to the least
important for the whole corpus, and neighbours are counted together: to the left is what every prompt needs, and what a
prompt needs of its own stands out to the right.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.neurons import NeuronSet, order_of
from coreinfer.policy import Prediction

BINS = 64
Counts = NDArray[np.int64]


def compare(artifact: Artifact, prediction: Prediction) -> dict[str, Any]:
    """A finished prediction's set beside the core of its nearest cluster at the same keep.

    ``sizes`` (B,): neurons in each bin. For each of ``layers``: ``prompt``, ``cluster`` and ``both``, how many neurons
    of a bin are in the prompt's set, in the cluster's core and in both, (B,) each; ``overlap``, the share of the
    prompt's neurons that are the cluster's too. ``overlap`` is their mean over layers.

    Raises:
        CoreInferError: there is no such cluster.
    """
    assert prediction.neurons is not None, "a prediction that waits for its prefill has no neurons"
    core = artifact.core(artifact.prior(prediction.cluster), prediction.keep)
    order = order_of(artifact.prior(GLOBAL) * artifact.sensitivity)
    return binned(prediction.neurons, core, order, min(BINS, core.width))


def binned(prompt: NeuronSet, core: NeuronSet, order: NDArray[np.int64], bins: int) -> dict[str, Any]:
    """Two sets of L layers in ``bins`` pieces of an order (L, F)."""
    edges = np.linspace(0, core.width, bins + 1).round().astype(np.int64)
    mine, theirs = (np.take_along_axis(neurons.mask(), order, 1) for neurons in (prompt, core))
    counts = [np.add.reduceat(mask, edges[:-1], axis=1, dtype=np.int64) for mask in (mine, theirs, mine & theirs)]
    layers = [_layer(*rows) for rows in zip(*counts, strict=True)]
    overlap = float(np.mean([layer["overlap"] for layer in layers]))
    return {"sizes": np.diff(edges).tolist(), "layers": layers, "overlap": round(overlap, 4)}


def _layer(prompt: Counts, cluster: Counts, both: Counts) -> dict[str, Any]:
    share = both.sum() / max(int(prompt.sum()), 1)
    return {
        "prompt": prompt.tolist(),
        "cluster": cluster.tolist(),
        "both": both.tolist(),
        "overlap": round(float(share), 4),
    }
