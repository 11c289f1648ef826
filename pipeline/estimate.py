"""How long a build will take, measured on a few of its own passages before the long stages begin."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.passages import spread, texts_at

SAMPLE, WORTH = 32, 1000  # passages timed; a corpus below WORTH passages is not worth it


def seconds_needed(passages: Path, total: int, work: Callable[[list[str]], Any]) -> float | None:
    """Seconds that ``work`` takes for ``total`` passages, by ``SAMPLE`` of everywhere; None for a few."""
    if total < WORTH:
        return None
    return seconds_each(texts_at(passages, spread(total, SAMPLE)), work) * total


def seconds_each(some: list[str], work: Callable[[list[str]], Any]) -> float:
    """Seconds that ``work`` takes for one of these texts."""
    for _ in ("to warm up", "to time"):
        begun = time.perf_counter()
        work(some)
    return (time.perf_counter() - begun) / len(some)
