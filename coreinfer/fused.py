"""``statistic.reduce_tokens`` on a GPU: one kernel a layer, two for count and griffin, where torch would run dozens."""

import logging
from typing import Any

import torch
from torch import Tensor

from coreinfer.errors import in_words
from coreinfer.launching import launching_on
from coreinfer.settings import StatisticSettings

WIDEST = 1 << 16  # neurons of a token that one program looks at
BITS = {torch.bfloat16: 15, torch.float16: 15, torch.float32: 31}  # of a magnitude
ACROSS = 64  # neurons of a program that adds up tokens

log = logging.getLogger(__name__)
_failed = set[torch.device]()  # where a kernel does not work; no process tries twice


def by_kernels(a: Tensor, valid: Tensor | None, settings: StatisticSettings, core: int) -> Tensor | None:
    """``a`` (B, T, F), ``valid`` bool (B, T) or None for all -> float32 (B, F); None where the kernels do not know
    these, or do not work here, which is said once. ``core``: how many neurons are core for a token.
    """
    known = settings.kind == "energy" or (a.shape[-1] <= WIDEST and settings.mode == "magnitude")
    if not (known and a.dtype in BITS and a.numel() and a.device not in _failed):
        return None
    try:
        with launching_on(a.device):
            return reduce(a, valid, settings.kind, core)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, of the compilers that it calls, or of the driver
        _failed.add(a.device)
        log.warning("torch takes the statistics, several times slower, since a kernel fails (%s)", in_words(error))
        return None


def reduce(a: Tensor, valid: Tensor | None, kind: str, core: int) -> Tensor:
    """The kernels' launches."""
    import triton

    from coreinfer.kernels.statistic import over_tokens

    (texts, tokens, width), a = a.shape, a.contiguous()
    counts = a.new_ones(texts, tokens, dtype=torch.int8) if valid is None else valid.contiguous().view(torch.int8)
    each = counts if kind == "energy" else _of_tokens(a, counts, core if kind == "count" else 0)
    out = a.new_empty(texts, width, dtype=torch.float32)
    over_tokens[(triton.cdiv(width, ACROSS), texts)](
        out, a, counts, each, tokens, width, KIND=kind, BT=32 if tokens > 16 else 16, BF=ACROSS
    )
    return out


def _of_tokens(a: Tensor, counts: Tensor, core: int) -> Tensor:
    """What is to be known of each token first: its ``core``-th largest magnitude, or if that is 0 its squared norm."""
    import triton

    from coreinfer.kernels.statistic import core_of_token, square_of_token

    width, kind = a.shape[-1], torch.int32 if core else torch.float32
    each: Any = torch.zeros(counts.shape, dtype=kind, device=a.device)
    wide = max(64, triton.next_power_of_2(width))
    if core:
        words = a.view(torch.int32)
        core_of_token[(counts.numel(),)](
            each, words, counts, words.shape[-1], core, SIZE=8 * a.element_size(), M=wide // 32,
            num_warps=max(1, min(16, wide // 4096)),
        )  # fmt: skip
    else:
        square_of_token[(counts.numel(),)](
            each, a, counts, width, FB=wide, num_warps=max(1, min(16, wide // 512))
        )
    found: Tensor = each
    return found
