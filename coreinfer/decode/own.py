"""PURE: which of a union's neurons are a text's own."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coreinfer.neurons import NeuronSet


def own(gathered: NeuronSet, sets: Sequence[NeuronSet]) -> list[NDArray[np.float32]]:
    """For each layer float32 (R, k), of k gathered neurons: 1 for those of a row's own set, 0 for the others.

    None, an empty list, where all rows have all of them. Each of ``sets`` (R of them) is a part of ``gathered``.
    """
    if all(one is gathered or one.per_layer == gathered.per_layer for one in sets):
        return []
    masks = np.stack([one.mask() for one in sets])
    return [masks[:, layer, ids].astype(np.float32) for layer, ids in enumerate(gathered.layers)]
