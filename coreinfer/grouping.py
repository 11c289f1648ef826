"""PURE: which prompts decode together, on the union of their neuron sets.

A step reads each kept weight once for all texts of its group. A union holds all that each prompt asked for, and more;
it may hold ``CAP`` times as much, so that a group of like prompts is small and unlike ones stay apart. What a larger
set would save by no longer being dense is less than gathering it costs: from ``DENSE`` on, all neurons are kept.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from coreinfer.neurons import NeuronSet, every

CAP = 1.5  # times a set's neurons that a group's may be
DENSE = 0.85  # share of all neurons from which a step takes all of them


def groups(sets: Sequence[NeuronSet], most: int) -> list[list[int]]:
    """Indices of ``sets``, at most so many a group: each begun by the first that is left, then grown by whichever adds
    fewest neurons, while the union stays within ``CAP`` times the first one's.
    """
    masks = np.stack([one.mask().reshape(-1) for one in sets])
    left, made = list(range(len(sets))), list[list[int]]()
    while left:
        made.append(_grown(masks, left, most))
        left = [index for index in left if index not in made[-1]]
    return made


def _grown(masks: NDArray[np.bool_], left: list[int], most: int) -> list[int]:
    group, union = [left[0]], masks[left[0]]
    rest, cap = left[1:], CAP * union.sum()
    while rest and len(group) < most:
        added = (masks[rest] & ~union).sum(1)
        best = int(added.argmin())
        if union.sum() + added[best] > cap:
            break
        union = union | masks[rest[best]]
        group.append(rest.pop(best))
    return sorted(group)


def joined(sets: Sequence[NeuronSet]) -> NeuronSet:
    """Their union, or all neurons where it holds most of them."""
    layers, width = len(sets[0].layers), sets[0].width
    union = np.any([one.mask() for one in sets], axis=0)
    if union.mean() >= DENSE:
        return every(layers, width)
    return NeuronSet(tuple(np.flatnonzero(row).astype(np.int32) for row in union), width)
