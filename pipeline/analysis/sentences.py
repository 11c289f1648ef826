"""PURE: sentence-wise core neurons (eq. 2) of a text's beginnings, in one layer, by the paper's count or by energy.

Shapes: T tokens, F neurons, E ends: the beginning up to end e holds the first e tokens. Dividing by the number of
tokens ranks nothing anew within a beginning, so sums are ranked.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from coreinfer.neurons import top
from coreinfer.settings import StatisticSettings
from coreinfer.statistic import reduce_tokens
from pipeline.analysis.bits import Bits, Floats, overlap, pack

STATISTICS = ("count", "energy")
LOTS = 1 << 16  # neurons of the layer in which lots are drawn: enough for two digits
_ENERGY = StatisticSettings("energy")


def count_sums(core: Tensor, ends: Sequence[int]) -> Floats:
    """In how many of the first e tokens each neuron is core (eq. 1): ``core`` bool (T, F) -> (E, F)."""
    parts = [core[start:end].sum(0, dtype=torch.int32) for start, end in _spans(ends)]
    return np.cumsum(torch.stack(parts).cpu().numpy(), 0, dtype=np.float64)


def energy_sums(a: Tensor, columns: Tensor, ends: Sequence[int]) -> Floats:
    """Sum of a^2 over the first e tokens, times ``columns`` (F,), squared norms of down columns: (T, F) -> (E, F)."""
    parts = [reduce_tokens(a[None, start:end], None, _ENERGY)[0] for start, end in _spans(ends)]
    sums = np.cumsum(torch.stack(parts).cpu().numpy(), 0, dtype=np.float64)
    return np.asarray(sums * columns.cpu().numpy())


def core_sets(sums: Floats, neurons: int) -> Bits:
    """The ``neurons`` largest of each row; ties go to the lower id, as everywhere in the project: (E, F) -> (E, W)."""
    return pack(top(sums, np.full(len(sums), neurons)).mask())


def by_lot(alpha: float, keep: float, prompt: int, more: int, seed: int) -> float:
    """What the overlap of a prompt's set and that of prompt and ``more`` would be if texts had no preferences.

    Each token draws a share alpha of the neurons as its core, by lot. The longer text holds the prompt, so its counts
    do too, and the sets are alike all the same; more than this shows that tokens prefer neurons, those of the text or
    those that the model prefers in any text.
    """
    rng = np.random.default_rng(seed)
    counts = rng.binomial(prompt, alpha, LOTS)
    both = np.stack([counts, counts + rng.binomial(more, alpha, LOTS)]).astype(np.float64)
    first, second = core_sets(both, max(1, round(keep * LOTS)))
    return float(overlap(first, second))


def _spans(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Between the ends, which ascend: (start, end) of what each adds to the one before."""
    return list(zip([0, *ends[:-1]], ends, strict=True))
