"""PURE: token activations -> the statistic of a text. Used by the offline recorder and by the online prefill alike.

Shapes: B texts, T tokens, F neurons of one layer's MLP. An activation is the input of the layer's down projection.

Sources: the count is equations 1 and 2 of CoreInfer (arXiv 2410.18311). Energy is a neuron's expected contribution to
the layer's output, E[a^2] * ||down column||^2, if neurons were uncorrelated. Griffin is that of GRIFFIN (arXiv
2404.01365): each token's activations divided by their L2 norm, then each neuron's L2 norm over the tokens; its square
over the number of tokens is kept here, which ranks alike and can be averaged.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.fused import by_kernels
from coreinfer.settings import StatisticSettings
from coreinfer.summing import by_loops, made_with


def core_tokens(a: Tensor, fraction: float, mode: str) -> Tensor:
    """Eq. 1: which neurons are core for each token. ``a`` (..., F) -> bool (..., F).

    ``magnitude``: a neuron is core if it is not zero and |a| reaches the k-th largest |a| of the token, k =
    ceil(fraction * F). ``positive``: the same among the token's positive activations only, k = ceil(fraction *
    number of positive ones). Ties at the k-th value are all core, so the result does not depend on an order.
    """
    if mode == "magnitude":
        size = a.abs()
        kth = _kth_largest(size, _core_of(a, fraction))
    else:
        size = a.clamp_min(0)
        positive = (size > 0).sum(-1, keepdim=True)
        k_token = torch.ceil(fraction * positive.double() - 1e-9).long().clamp_min(1)
        kth = size.sort(dim=-1, descending=True).values.gather(-1, k_token - 1)
    return (size > 0) & (size >= kth)


def _core_of(a: Tensor, fraction: float) -> int:
    """How many neurons are core for a token of ``a`` (..., F)."""
    return max(1, _ceil(fraction * a.shape[-1]))


def _kth_largest(size: Tensor, k: int) -> Tensor:
    """The k-th largest of non-negative ``size`` (..., F) -> (..., 1)."""
    at = size.shape[-1] - k
    if size.dtype is torch.bfloat16 and size.device.type == "cpu":
        # Bits of floats >= 0 sort as integers, and NumPy partitions 16-bit ones 2.5 times as fast as kthvalue runs.
        bits = np.partition(size.view(torch.int16).numpy(), at, axis=-1)[..., at : at + 1]
        return torch.from_numpy(np.ascontiguousarray(bits)).view(torch.bfloat16)
    return size.kthvalue(at + 1, dim=-1, keepdim=True).values


def _ceil(x: float) -> int:
    """Ceiling that forgives a product's last bit: 0.2 * 15 is 3.0000000000000004 and means 3."""
    return int(-((-(x - 1e-9)) // 1))


def reduce_layers(
    layers: Sequence[Tensor], valid: Tensor | None, settings: StatisticSettings
) -> Sequence[Tensor] | Tensor:
    """``reduce_tokens`` of each of some layers' activations, of one shape and dtype on one device."""
    if layers[0].is_cuda:
        core = _core_of(layers[0], settings.token_fraction)
        if (made := by_kernels(layers, valid, settings, core)) is not None:
            return made
    return [reduce_tokens(a, valid, settings) for a in layers]


def reduce_tokens(a: Tensor, valid: Tensor | None, settings: StatisticSettings) -> Tensor:
    """Sum over a text's tokens: ``a`` (B, T, F), ``valid`` bool (B, T) or None for all -> float32 (B, F).

    ``energy``: sum of a^2. ``count``: the number of tokens in which the neuron is core (eq. 2 before its division).
    ``griffin``: sum of a^2 / (the token's sum of a^2 over all neurons); a token without any activity adds nothing.
    A neuron with an activation that is no finite number is NaN or infinite.
    """
    out = torch.empty((a.shape[0], a.shape[2]), dtype=torch.float32, device=a.device)
    for i, text in enumerate(a):  # one text's temporaries fit the cache: 10 times as fast as the whole batch at once
        if valid is not None:
            text = torch.where(valid[i, :, None], text, 0)
        if settings.kind == "count":
            count = core_tokens(text, settings.token_fraction, settings.mode).sum(0, dtype=torch.int32)
            out[i] = torch.where(text.isfinite().all(0), count, torch.nan)
        else:
            square = text.float().square()
            if settings.kind == "griffin":
                square /= square.sum(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            out[i] = square.sum(0)
    return out


def reduce_texts(a: Tensor, counts: Tensor, starts: NDArray[np.int64], settings: StatisticSettings) -> Tensor:
    """The same for texts behind each other: ``a`` (N, F), of which those tokens count that ``counts``, bool (N,), says;
    ``starts`` (B + 1,) is where texts begin and the last one ends -> float32 (B, F).
    """
    core = _core_of(a, settings.token_fraction)
    if (made := by_loops(a, counts, starts, settings, core)) is not None:
        return made
    spans = pairwise(starts.tolist())
    return torch.cat([reduce_tokens(a[None, begin:end], counts[None, begin:end], settings) for begin, end in spans])


def reduced_by(device: torch.device, dtype: torch.dtype, width: int, settings: StatisticSettings) -> str:
    """What sums up activations of ``width`` neurons on a device, as far as last bits depend on it; a GPU is tried."""
    if device.type != "cuda":
        return made_with()
    a = torch.zeros(1, 32, width, dtype=dtype, device=device)
    return "torch" if by_kernels([a], None, settings, _core_of(a, settings.token_fraction)) is None else "kernels"


def column_energy(down_rows: Tensor) -> Tensor:
    """Squared norm of each neuron's down column; ``down_rows`` (F, H), one row a neuron -> float32 (F,)."""
    norm: Tensor = torch.linalg.vector_norm(down_rows, dim=1, dtype=torch.float32)
    return norm.square()


def finish(sums: Tensor, tokens: Tensor, columns: Tensor, settings: StatisticSettings) -> Tensor:
    """Sums (B, L, F) over ``tokens`` (B,), and ``columns`` (L, F) -> the statistic (B, L, F), float32.

    ``energy``: mean over tokens of a^2, times the squared norm of the down column. ``count``: eq. 2, the share of the
    text's tokens in which the neuron is core. ``griffin``: the neuron's mean share of a token's squared norm.
    """
    mean = sums / tokens[:, None, None].clamp_min(1)
    return mean * columns if settings.kind == "energy" else mean
