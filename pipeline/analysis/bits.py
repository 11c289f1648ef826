"""PURE: sets of neurons as bits, 64 to a word, so that thousands of them fit and overlaps are a few instructions.

Shapes: F neurons, W = ceil(F / 64) words; neuron i is bit i % 64 of word i // 64. Bits beyond F are zero.
"""

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Floats = NDArray[np.float64]


def pack(masks: NDArray[np.bool_]) -> Bits:
    """bool (..., F) -> (..., W)."""
    room = [(0, 0)] * (masks.ndim - 1) + [(0, -masks.shape[-1] % 64)]
    return np.packbits(np.pad(masks, room), axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def sizes(sets: Bits) -> NDArray[np.int64]:
    """How many neurons each set holds: (..., W) -> (...)."""
    return np.asarray(np.bitwise_count(sets).sum(-1, dtype=np.int64))


def overlap(a: Bits, b: Bits) -> Floats:
    """What two sets share, over the mean of their sizes (Dice): (..., W) twice, broadcast -> (...).

    Of sets of one size it is the share of either that the other holds too; two empty sets are equal: 1.
    """
    total = sizes(a) + sizes(b)
    return np.where(total > 0, 2 * sizes(a & b) / np.maximum(total, 1), 1.0)
