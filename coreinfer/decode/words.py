"""Weights and caches as kernels read them."""

import torch
import triton
from torch import Tensor

from coreinfer.decode.network import Weight
from coreinfer.quantised.packed import Packed


def power(n: int) -> int:
    """The next power of two."""
    return int(triton.next_power_of_2(n))


def held(weight: Weight) -> tuple[Tensor, Tensor, int]:
    """A weight's memory, in words where ``kernels.weights`` reads those, its scales, and its bits as named there."""
    if isinstance(weight, Packed):
        return weight.data.view(torch.int32) if weight.bits == 8 else weight.data, weight.scales, weight.bits
    if weight.dtype != torch.bfloat16 or weight.shape[-1] % 2:
        return weight, weight, 32
    words = weight.view(torch.int32)
    return words, words, 16
