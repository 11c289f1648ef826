"""Sets of neurons as plain Python sets: what the bits of an analysis are checked against."""

from typing import Any

import numpy as np

from pipeline.analysis.bits import Bits


def dice(a: set[int], b: set[int]) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 1.0


def members(mask: Any) -> set[int]:
    """The set that a row of booleans means."""
    return {int(i) for i in np.flatnonzero(mask)}


def unpacked(words: Bits) -> set[int]:
    """The set that words of 64 bits hold."""
    return {i for i in range(64 * len(words)) if int(words[i // 64]) >> (i % 64) & 1}
