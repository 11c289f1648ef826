"""PURE: which waiting text takes a slot that is free, and whom it decodes with.

Texts of like neurons decode together, so that weights are read once for several of them. A text is overtaken by at most
``PATIENCE`` texts that came later: then it is next, whatever its neurons. So one that has k texts before it is begun at
the latest as the (k + PATIENCE + 1)-th, and as slots are never left free while texts wait, it is begun.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PATIENCE = 16  # texts that came later, of which another may be preferred
GROUPS = 3  # of texts that take turns; what is gathered for each stays
Mask = NDArray[np.bool_]  # (L * F,), a neuron set
Bits = NDArray[np.uint8]


@dataclass
class Waits:
    """A text that has no slot yet: its neurons, and how many that came later were preferred to it."""

    mask: Mask
    overtaken: int = 0

    @cached_property
    def bits(self) -> Bits:
        return bits_of(self.mask)


@dataclass(frozen=True)
class Join:
    """The ``text``-th of those that wait, and the group that it goes to; a new one where that is None."""

    text: int
    group: int | None


@dataclass(frozen=True)
class Cost:
    """What a step takes, in times of reading all neurons' weights: (other + k)(1 + row * rows) for a share k of them.

    other: for all other weights, and another group's turn. row: what each text's arithmetic adds.
    """

    other: float
    row: float


# The demo LM, float32, two cores. ``row`` is fitted to steps of 1 to 8 texts, keep 0.2 to 1; ``other`` is what served a
# mixed load best: 0.3, 0.4 and 0.5 made a tenth more tokens a second than ``first_come``, 0.1 and 0.7 less of a gain.
ON_CPU = Cost(0.4, 0.12)
ON_GPU = Cost(0.33, 0.05)  # Llama-3.1-8B, bfloat16, an H100: a step of eight texts takes 1.34 times one's


def choose(waiting: Sequence[Waits], unions: Sequence[Mask], rows: Sequence[int], cost: Cost = ON_CPU) -> Join:
    """For one free slot. ``waiting``: those that came first are first, one at least; ``unions``: each group's neurons,
    ``rows``: its texts.

    The text and the group that save most by decoding together: weights that both read are read once, but each text's
    arithmetic is done on the other's neurons too. If none saves anything, the first text has a group of its own, or
    where there are ``GROUPS`` already, goes where it loses least.
    """
    first = waiting[:1] if waiting[0].overtaken >= PATIENCE else waiting
    if not unions:
        return Join(0, None)
    masks = np.stack([one.bits for one in first])
    sizes, groups = _count(masks), zip(map(bits_of, unions), rows, strict=True)
    saved = np.stack([_saved(masks, sizes, union, count, cost) for union, count in groups])
    saved = saved / waiting[0].mask.size + cost.other
    group, text = np.unravel_index(saved.argmax(), saved.shape)
    if saved[group, text] > 0:
        return Join(int(text), int(group))
    return Join(0, None if len(unions) < GROUPS else int(saved[:, 0].argmax()))


def _saved(texts: Bits, sizes: NDArray[np.int64], union: Bits, rows: int, cost: Cost) -> NDArray[np.float64]:
    """By each text (n, B), of so many neurons (n,), that joins a group of so many rows, in neurons: what their steps
    take one after the other, less what they take together, but for ``cost.other``.
    """
    shared = _count(texts & union)
    new, theirs = sizes - shared, _count(union) - shared
    return np.asarray(shared - cost.row * (rows * new + theirs))


def bits_of(mask: Mask) -> Bits:
    """Eight neurons a byte: of an 8B model's sets, 16 that wait are compared with a group in a millisecond."""
    return np.packbits(mask)


def _count(bits: Bits) -> NDArray[np.int64]:
    return np.asarray(np.bitwise_count(bits).sum(-1, dtype=np.int64))


def overtake(waiting: Sequence[Waits], text: int) -> None:
    """The ``text``-th was preferred to all before it."""
    for one in waiting[:text]:
        one.overtaken += 1


def first_come(waiting: Sequence[Waits], unions: Sequence[Mask], rows: Sequence[int]) -> Join:
    """What ``choose`` is measured against: the first one, with all the others."""
    return Join(0, 0 if unions else None)
