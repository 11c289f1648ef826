"""``statistic.reduce_tokens`` on a GPU, of several layers at a time: a kernel or two, where torch would run dozens a
layer. A launch costs a prompt's prefill more than what it computes, since Transformers' forward waits for the CPU.
"""

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coreinfer.errors import in_words
from coreinfer.launching import launching_on
from coreinfer.settings import StatisticSettings

WIDEST = 1 << 16  # neurons of a token that one program looks at
ACROSS = 64  # neurons of a program that adds up tokens
KNOWN = (torch.bfloat16, torch.float16, torch.float32)

log = logging.getLogger(__name__)
_failed = set[torch.device]()  # where a kernel does not work; no process tries twice


def by_kernels(layers: Sequence[Tensor], valid: Tensor | None, settings: StatisticSettings, core: int) -> Tensor | None:
    """``layers`` (B, T, F) each, of one dtype on one device, ``valid`` bool (B, T) or None for all -> float32
    (L, B, F); None where the kernels do not know these, or do not work here, which is said once. ``core``: how many
    neurons are core for a token.
    """
    a, kind = layers[0], settings.kind
    known = kind == "energy" or (a.shape[-1] <= WIDEST and settings.mode == "magnitude")
    words = kind != "count" or a.shape[-1] * a.element_size() % 4 == 0
    if not (known and words and a.dtype in KNOWN and a.numel() and a.device not in _failed):
        return None
    try:
        with launching_on(a.device):
            return reduce(layers, valid, kind, core)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of Triton, of the compilers that it calls, or of the driver
        _failed.add(a.device)
        log.warning("torch takes the statistics, several times slower, since a kernel fails (%s)", in_words(error))
        return None


def reduce(layers: Sequence[Tensor], valid: Tensor | None, kind: str, core: int) -> Tensor:
    """The kernels' launches."""
    import triton

    from coreinfer.kernels.statistic import over_tokens

    layers = [_aligned(a) for a in layers]  # held until the launches are made, so that nothing else is put there
    first = layers[0]
    texts, tokens, width = first.shape
    where = _table(layers)
    counts = first.new_ones(texts, tokens, dtype=torch.int8) if valid is None else valid.contiguous().view(torch.int8)
    each = counts if kind == "energy" else _of_tokens(where, first, counts, core if kind == "count" else 0)
    out = first.new_empty(len(layers), texts, width, dtype=torch.float32)
    over_tokens[(triton.cdiv(width, ACROSS), texts, len(layers))](
        out, where, first, counts, each, tokens, width, KIND=kind, BT=32 if tokens > 16 else 16, BF=ACROSS
    )
    return out


def _table(layers: Sequence[Tensor]) -> Tensor:
    """Where they lie, on their device. From memory that is not pinned, a copy would wait for all that runs there."""
    pinned = layers[0].is_cuda
    return torch.tensor([a.data_ptr() for a in layers], pin_memory=pinned).to(layers[0].device, non_blocking=pinned)


def _aligned(a: Tensor) -> Tensor:
    """In a row from an address that loads of 16 bytes may begin at."""
    a = a.contiguous()
    return a if a.data_ptr() % 16 == 0 else a.clone()


def _of_tokens(where: Tensor, like: Tensor, counts: Tensor, core: int) -> Tensor:
    """What is to be known of each token first: its ``core``-th largest magnitude, or if that is 0 its squared norm."""
    import triton

    from coreinfer.kernels.statistic import core_of_token, square_of_token

    tokens, width, layers = counts.numel(), like.shape[-1], len(where)
    wide, kind = max(64, triton.next_power_of_2(width)), torch.int32 if core else torch.float32
    each: Any = torch.zeros(layers, tokens, dtype=kind, device=like.device)
    if core:
        words = like.view(torch.int32)
        core_of_token[(tokens, layers)](
            each, where, words, counts, tokens, words.shape[-1], core, SIZE=8 * like.element_size(), M=wide // 32,
            num_warps=max(1, min(16, wide // 4096)),
        )  # fmt: skip
    else:
        square_of_token[(tokens, layers)](
            each, where, like, counts, tokens, width, FB=wide, num_warps=max(1, min(16, wide // 512))
        )
    found: Tensor = each
    return found
