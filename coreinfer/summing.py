"""``statistic.reduce_texts`` on a CPU, and sums of shares in fixed point, in compiled loops; where there is no Numba,
torch and NumPy take several passes for the same, and that is said.
"""

import logging
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.errors import CoreInferError, in_words
from coreinfer.neurons import Sums, fixed
from coreinfer.settings import StatisticSettings
from coreinfer.sharing import TURN

SHIFTS = {torch.bfloat16: 16, torch.float32: 0}  # from a float's bits to those of a float32

log = logging.getLogger(__name__)


@cache
def _loops() -> ModuleType | None:
    """None where there is no Numba, or no folder where it may keep what it compiled; that is said once."""
    try:
        from coreinfer import loops
    except (ImportError, RuntimeError) as error:
        log.warning(
            "torch takes the statistics, several times slower, since loops cannot compile (%s)", in_words(error)
        )
        return None
    return loops


def made_with() -> str:
    """What the loops' last bits depend on: Numba, and the processor that it compiles for; ``none`` without loops."""
    if _loops() is None:
        return "none"
    import numba
    from llvmlite.binding import get_host_cpu_name

    chosen: Any = numba.config
    return " ".join(
        filter(None, ["numba", numba.__version__, chosen.CPU_NAME or get_host_cpu_name(), chosen.CPU_FEATURES])
    )


def compile_loops(dtype: torch.dtype) -> None:
    """Compile them for activations of this ``dtype``, or load what was compiled, before they are needed.

    Raises:
        CoreInferError: what was compiled cannot be kept.
    """
    a, starts = torch.ones(2, 8, dtype=dtype), np.arange(3)
    try:
        by_loops(a, torch.ones(2, dtype=torch.bool), starts, StatisticSettings(), 1)
        add_shares(np.zeros((1, 1, 8), np.int64), np.zeros((1, 2), np.int32), np.zeros((2, 1, 8)))
    except OSError as error:
        raise CoreInferError(
            f"Numba cannot keep what it compiled ({in_words(error)}): make room there, or name another folder in "
            "NUMBA_CACHE_DIR"
        ) from error


def by_loops(
    a: Tensor, counts: Tensor, starts: NDArray[np.int64], settings: StatisticSettings, core: int
) -> Tensor | None:
    """``a`` (N, F), ``counts`` bool (N,), ``starts`` (B + 1,) -> float32 (B, F); None where the loops do not know them.
    ``core``: how many neurons are core for a token.
    """
    known = a.device.type == "cpu" and a.dtype in SHIFTS and settings.mode == "magnitude"
    if not known or (loops := _loops()) is None:
        return None
    kind, out = getattr(loops, settings.kind.upper()), np.empty((len(starts) - 1, a.shape[1]), np.float32)
    what = (_bits(a), SHIFTS[a.dtype], counts.numpy(), starts, kind, core)
    if (threads := min(torch.get_num_threads(), len(out))) == 1:  # Numba's other threads would be waited for
        loops.over_tokens(*what, 0, 1, out)
    else:
        with TURN:
            loops.shared_over_tokens(*what, threads, out)
    return torch.from_numpy(out)


def _bits(a: Tensor) -> NDArray[Any]:
    kind: Any = torch.int16 if a.dtype is torch.bfloat16 else torch.int32
    raw: NDArray[Any] = a.contiguous().view(kind).numpy()
    return raw.view(np.uint16 if kind is torch.int16 else np.uint32)


def add_shares(sums: Sums, rows: NDArray[np.integer], shares: NDArray[np.float64]) -> None:
    """Shares (B, L, F), each in fixed point, are added to ``sums`` (K, L, F): those of text b to rows[:, b] (m, B)."""
    if (loops := _loops()) is None:
        for mine, one in zip(rows.T, shares, strict=True):
            exact = fixed(one)
            for row in mine:
                sums[row] += exact
        return
    if not rows.size:
        return
    if not 0 <= rows.min() <= rows.max() < len(sums):  # a compiled loop would write beside them
        raise IndexError(f"clusters from {rows.min()} to {rows.max()} of {len(sums)}")
    assert sums.flags.c_contiguous
    what = (sums.reshape(len(sums), -1), np.ascontiguousarray(rows), shares.reshape(len(shares), -1))
    if (threads := torch.get_num_threads()) == 1:
        loops.add_fixed(*what, 0, what[0].shape[1])
    else:
        with TURN:
            loops.shared_add_fixed(*what, threads)
