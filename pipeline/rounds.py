"""What is measured side by side: in turn, in rounds, so that a machine's moods meet all alike."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from coreinfer.bench.limits import seconds


@dataclass(frozen=True)
class Ratio:
    """Median seconds of ours and of what it is held against, and the median of the rounds' ratios, theirs over ours for
    a speed, ours over theirs for a cost.
    """

    ours_s: float
    theirs_s: float
    theirs: str
    ratio: float


def in_turn(works: dict[str, Callable[[], Any]], device: str, rounds: int) -> dict[str, list[float]]:
    """Seconds of each round of each, after one that warms up."""
    took: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            taken = seconds(work, device)
            took[name] += [taken] if number else []
    return took


def compared(took: dict[str, list[float]], ours: str, theirs: str, power: int) -> Ratio:
    """``power``: 1 for a cost, -1 for a speed."""
    each = [(a / b) ** power for a, b in zip(took[ours], took[theirs], strict=True)]
    return Ratio(round(median(took[ours]), 4), round(median(took[theirs]), 4), theirs, round(median(each), 4))
