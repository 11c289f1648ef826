"""PURE: which waiting text takes a slot that is free, and whom it decodes with.

Texts of like neurons decode together, so that their union is small. A text is overtaken by at most ``PATIENCE`` texts
that came later: then it is next, whatever its neurons. So one that has k texts before it is begun at the latest as the
(k + PATIENCE + 1)-th, and as slots are never left free while texts wait, it is begun.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coreinfer.grouping import CAP

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


def choose(waiting: Sequence[Waits], unions: Sequence[Mask], alone: Sequence[int]) -> Join:
    """For one free slot. ``waiting``: those that came first are first, one at least; ``unions``: each group's neurons;
    ``alone``: how many the largest set in each has.

    The text that adds fewest neurons to a group, within ``CAP`` times the largest set there; else the first one, in a
    group of its own, or where there are ``GROUPS`` already, in the one to which it adds fewest.
    """
    first = waiting[:1] if waiting[0].overtaken >= PATIENCE else waiting
    masks = np.stack([one.mask for one in first])
    sizes = masks.sum(1)
    best: tuple[int, int, int] | None = None
    for group, (union, size) in enumerate(zip(unions, alone, strict=True)):
        added = (masks & ~union).sum(1)
        fits = union.sum() + added <= CAP * np.maximum(sizes, size)
        if fits.any():
            text = int(np.where(fits, added, np.iinfo(added.dtype).max).argmin())
            best = min(best or (int(added[text]) + 1, 0, 0), (int(added[text]), text, group))
    if best is not None:
        return Join(best[1], best[2])
    if len(unions) < GROUPS:
        return Join(0, None)
    return Join(0, int(np.argmin([(masks[0] & ~union).sum() for union in unions])))


def overtake(waiting: Sequence[Waits], text: int) -> None:
    """The ``text``-th was preferred to all before it."""
    for one in waiting[:text]:
        one.overtaken += 1


def first_come(waiting: Sequence[Waits], unions: Sequence[Mask], alone: Sequence[int]) -> Join:
    """What ``choose`` is measured against: the first one, with all the others."""
    return Join(0, 0 if unions else None)
