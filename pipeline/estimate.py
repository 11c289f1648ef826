"""How long a build will take, measured on some of its own passages before the long stages begin.

A batch of a build is of neighbours among a block's passages, sorted by length, so it is these that are timed. As many
from everywhere, run together, differ in length and are mostly padding: where lengths have two humps, they took 1.7
times as long.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.passages import BLOCK, spread, texts_at
from pipeline.record import Recorder

BATCHES, WORTH = 4, 1000  # batches that are timed; a corpus below WORTH passages is not worth it


def seconds_needed(passages: Path, total: int, work: Callable[[list[str]], Any], recorder: Recorder) -> float | None:
    """Seconds that ``work`` takes for ``total`` passages, by ``BATCHES`` of the recorder's of them; None for a few."""
    if total < WORTH:
        return None
    some = texts_at(passages, spread(total, BLOCK))
    picked, times = like_batches(recorder.lengths(some), recorder.batch, BATCHES)
    return seconds_of([some[i] for i in picked], work) * times * total / len(some)


def like_batches(lengths: Sequence[int], batch: int, count: int) -> tuple[list[int], float]:
    """Which of a block's texts, of these ``lengths``, are ``count`` of its batches, from the shortest to the longest,
    and how many times as many tokens all of them have: work grows with tokens more evenly than with texts.
    """
    sizes = np.maximum(lengths, 1)
    order = np.argsort(sizes, kind="stable")
    starts = batch * spread(-(-len(order) // batch), count)
    picked = np.concatenate([order[at : at + batch] for at in starts])
    return picked.tolist(), float(sizes.sum() / sizes[picked].sum())


def seconds_of(some: list[str], work: Callable[[list[str]], Any]) -> float:
    """Seconds that ``work`` takes for these texts, once it is warm."""
    for _ in ("to warm up", "to time"):
        begun = time.perf_counter()
        work(some)
    return time.perf_counter() - begun
