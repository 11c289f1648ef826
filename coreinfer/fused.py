"""``statistic.reduce_tokens`` on a GPU, of several layers at a time: a kernel or two, where torch would run dozens a
layer. A launch costs a prompt's prefill more than what it computes, since Transformers' forward waits for the CPU.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from coreinfer.errors import in_words
from coreinfer.launching import launching_on
from coreinfer.settings import StatisticSettings

WIDEST = 1 << 16  # neurons of a token that one program looks at
ACROSS = 64  # neurons of a program that adds up tokens' squares
WORDS, TOGETHER = 64, 128  # words of 32 neurons, and tokens, of a program that adds up which are core
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
    layers = [_aligned(a) for a in layers]  # held until the launches are made, so that nothing else is put there
    first, where = layers[0], _table(layers)
    counts = first.new_ones(first.shape[:2], dtype=torch.int8) if valid is None else valid.contiguous().view(torch.int8)
    made = torch.zeros if kind == "count" else torch.empty
    out = made(len(layers), len(first), first.shape[-1], dtype=torch.float32, device=first.device)
    if kind == "count":
        _count(out, where, first, counts, core)
    else:
        _add_squares(out, where, first, counts, kind)
    return out


def _add_squares(out: Tensor, where: Tensor, like: Tensor, counts: Tensor, kind: str) -> None:
    """Energy and griffin, ``out`` (L, B, F)."""
    import triton

    from coreinfer.kernels.statistic import over_tokens, square_of_token

    (texts, tokens), (layers, _, width) = counts.shape, out.shape
    squares: Any = counts
    if kind == "griffin":
        squares = torch.zeros(layers, counts.numel(), dtype=torch.float32, device=like.device)
        wide = _wide(width)
        square_of_token[(counts.numel(), layers)](
            squares, where, like, counts, counts.numel(), width, FB=wide, num_warps=max(1, min(16, wide // 512))
        )
    over_tokens[(triton.cdiv(width, ACROSS), texts, layers)](
        out, where, like, counts, squares, tokens, width, KIND=kind, BT=32 if tokens > 16 else 16, BF=ACROSS
    )


def _count(out: Tensor, where: Tensor, like: Tensor, counts: Tensor, core: int) -> None:
    """In how many tokens a neuron is one of the ``core`` largest, ``out`` (L, B, F)."""
    import triton

    from coreinfer.kernels.statistic import core_of_token, over_cores

    (texts, tokens), (layers, _, width) = counts.shape, out.shape
    size, many = 8 * like.element_size(), _wide(width) // 32
    cores = torch.empty(layers, counts.numel(), many, dtype=torch.int32, device=like.device)
    bad = torch.zeros(layers, texts, many, dtype=torch.int32, device=like.device)
    words = like.view(torch.int32)
    core_of_token[(counts.numel(), layers)](
        cores, bad, where, words, counts, counts.numel(), tokens, words.shape[-1], core,
        SIZE=size, EXPONENT=round(-math.log2(torch.finfo(like.dtype).eps)), M=many,
        num_warps=max(1, min(16, many // 128)),
    )  # fmt: skip
    block = min(many, WORDS)
    over_cores[(many // block * triton.cdiv(tokens, TOGETHER), texts, layers)](
        out, cores, bad, counts, tokens, width, SIZE=size, M=many, MB=block, TB=TOGETHER, num_warps=1
    )


def _wide(width: int) -> int:
    """Of a token's neurons, as a power of 2."""
    return max(64, 1 << (width - 1).bit_length())


def _table(layers: Sequence[Tensor]) -> Tensor:
    """Where they lie, on their device. From memory that is not pinned, a copy would wait for all that runs there."""
    pinned = layers[0].is_cuda
    return torch.tensor([a.data_ptr() for a in layers], pin_memory=pinned).to(layers[0].device, non_blocking=pinned)


def _aligned(a: Tensor) -> Tensor:
    """In a row from an address that loads of 16 bytes may begin at."""
    a = a.contiguous()
    return a if a.data_ptr() % 16 == 0 else a.clone()
