"""Rows of weights as integers and scales: symmetric, rounded to the nearest. Nothing here knows a model.

8 bits: a float32 scale a row, 127 steps to each side. 4 bits: a bfloat16 scale for each ``GROUP`` of weights along the
row, 8 steps to one side and 7 to the other, four weights in each 16-bit word; a weight takes 4.25 bits with its scale.
Smaller groups are nearer to the weights, and cost more scales and work.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from coreinfer.errors import CoreInferError

GROUP = 64  # weights that share a scale of 4 bits; hidden sizes are multiples of it in every family that is known
LANES, DEEP = 16, 4  # word l of a group holds its weights l, 16 + l, 32 + l, 48 + l, from the lowest bits on
PIECE = 1 << 20  # weights that are quantised at a time: their floats are few megabytes


@dataclass(frozen=True, eq=False)
class Packed:
    """Quantised rows (..., n), indexed like a tensor on all axes but the last.

    Attributes:
        data: int8 (..., n), or int16 (..., n / 4): words of four weights, each stored 8 higher, as 0 to 15.
        scales: float32 (...), or bfloat16 (..., n / 64).
    """

    data: Tensor
    scales: Tensor

    @property
    def bits(self) -> int:
        return 8 if self.data.dtype is torch.int8 else 4

    @property
    def shape(self) -> torch.Size:
        """Of the weights."""
        *rows, n = self.data.shape
        return torch.Size([*rows, n if self.bits == 8 else n * DEEP])

    @property
    def nbytes(self) -> int:
        return self.data.nbytes + self.scales.nbytes

    def numel(self) -> int:
        return self.shape.numel()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> "Packed":
        return Packed(self.data[index], self.scales[index])

    def columns(self, first: int, end: int) -> "Packed":
        """Those of all rows; whole groups."""
        if self.bits == 8:
            return Packed(self.data[..., first:end], self.scales)
        data, scales = self.data[..., first // DEEP : end // DEEP], self.scales[..., first // GROUP : end // GROUP]
        return Packed(data, scales)

    def contiguous(self) -> "Packed":
        return Packed(self.data.contiguous(), self.scales.contiguous())

    def dequantised(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """The weights (..., n), computed in float32, then rounded to ``dtype``."""
        if self.bits == 8:
            return (self.data * self.scales[..., None]).to(dtype)
        shifts = torch.arange(0, 4 * DEEP, 4, dtype=torch.int16, device=self.data.device)[:, None]
        words = self.data.reshape(*self.data.shape[:-1], -1, 1, LANES)
        grid = ((words >> shifts) & 15) - 8  # (..., groups, 4, 16)
        made: Tensor = grid * self.scales[..., None, None].float()
        return made.flatten(-3).to(dtype)


def joined(parts: Sequence[Packed]) -> Packed:
    """One below another."""
    return Packed(torch.cat([x.data for x in parts]), torch.cat([x.scales for x in parts]))


def stacked(parts: Sequence[Packed]) -> Packed:
    """Side by side: P of (F, n) -> (F, P, n)."""
    return Packed(torch.stack([x.data for x in parts], 1), torch.stack([x.scales for x in parts], 1))


def quantised(weight: Tensor, bits: int) -> Packed:
    """Rows (m, n) of 8 or 4 bits.

    Raises:
        CoreInferError: 4 bits and rows that groups do not divide, or weights that are no numbers.
    """
    n = weight.shape[1]
    if bits == 4 and n % GROUP:
        raise CoreInferError(f"int4 quantises {GROUP} weights together, which do not divide rows of {n}: give int8")
    one = _row_scales if bits == 8 else _group_scales
    made = joined([one(part.float()) for part in torch.split(weight, max(1, PIECE // n))])
    if not bool(made.scales.isfinite().all()):
        raise CoreInferError("the model holds weights that are infinite or no numbers: they cannot be quantised")
    return made


def _row_scales(w: Tensor) -> Packed:
    """8 bits of rows (m, n), float32. A row of zeros has a scale too."""
    scales = w.abs().amax(1).div(127).clamp_min(torch.finfo(torch.float32).tiny)
    return Packed(w.div(scales[:, None]).round_().to(torch.int8), scales)


def _group_scales(w: Tensor) -> Packed:
    """4 bits of rows (m, n), float32. A group's largest weight takes the grid's longer side, which may make its scale
    negative. (The best by squared error of six scales for each group changed a model's predictions no less.)
    """
    groups = w.reshape(len(w), -1, GROUP)
    scales = groups.gather(2, groups.abs().argmax(2, keepdim=True)).div(-8).bfloat16()
    steps = torch.where(scales == 0, 1, scales).float()
    stored = groups.div(steps).round_().clamp_(-8, 7).int().add_(8).reshape(*groups.shape[:2], DEEP, LANES)
    shifts = torch.arange(0, 4 * DEEP, 4, dtype=torch.int32, device=w.device)[:, None]
    words = (stored << shifts).sum(2, dtype=torch.int32)
    return Packed(words.to(torch.int16).flatten(1), scales[..., 0])
