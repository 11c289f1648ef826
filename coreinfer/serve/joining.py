"""PURE: which waiting text takes a slot that is free, and whom it decodes with.

Texts of like neurons decode together, so that weights are read once for several of them. A text is overtaken by at most
``PATIENCE`` texts that came later: then it is next, whatever its neurons. So one that has k texts before it is begun at
the latest as the (k + PATIENCE + 1)-th, and as slots are never left free while texts wait, it is begun.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PATIENCE = 16  # texts that came later, of which another may be preferred
GROUPS = 3  # of texts that take turns; what is gathered for each stays
Mask = NDArray[np.bool_]  # (L * F,), a neuron set


@dataclass
class Waits:
    """A text that has no slot yet: its neurons, and how many that came later were preferred to it."""

    mask: Mask
    overtaken: int = 0


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
# mixed load best: 0.3 and 0.5 made a tenth more tokens a second than ``first_come``, 0.1 and 0.7 less of a gain.
ON_CPU = Cost(0.4, 0.12)
ON_GPU = Cost(0.33, 0.04)  # Llama-3.1-8B, bfloat16, an H100: eight texts take 1.34 times the time of one


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
    masks = np.stack([one.mask for one in first])
    saved = np.stack([_saved(masks, union, count, cost) for union, count in zip(unions, rows, strict=True)])
    group, text = np.unravel_index(saved.argmax(), saved.shape)
    if saved[group, text] > 0:
        return Join(int(text), int(group))
    return Join(0, None if len(unions) < GROUPS else int(saved[:, 0].argmax()))


def _saved(masks: Mask, union: Mask, rows: int, cost: Cost) -> NDArray[np.float64]:
    """By each text (n, L * F) that joins a group of so many rows: what they take one after the other, less what they
    take together.
    """
    shared = (masks & union).mean(1)
    new, theirs = masks.mean(1) - shared, union.mean() - shared
    return np.asarray(cost.other + shared - cost.row * (rows * new + theirs))


def overtake(waiting: Sequence[Waits], text: int) -> None:
    """The ``text``-th was preferred to all before it."""
    for one in waiting[:text]:
        one.overtaken += 1


def first_come(waiting: Sequence[Waits], unions: Sequence[Mask], rows: Sequence[int]) -> Join:
    """What ``choose`` is measured against: the first one, with all the others."""
    return Join(0, 0 if unions else None)
