"""A linear module whose weights are quantised; it computes in whatever float its input has."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from coreinfer.errors import CoreInferError
from coreinfer.quantised.packed import GROUP, Packed

PIECE = 1 << 19  # weights that a CPU makes floats of at a time: they stay in its cache
NARROWEST = 256  # outputs of such a piece


class QuantisedLinear(nn.Module):
    """y = W x + bias. Each forward makes W anew, so it costs a prompt little and a single token much.

    ``packed`` has W's rows (outputs, inputs), or ``by_input`` its columns as rows (inputs, outputs): a down projection
    is stored by neuron.
    """

    data: Tensor
    scales: Tensor

    def __init__(self, packed: Packed, bias: Tensor | None, by_input: bool) -> None:
        super().__init__()
        self.register_buffer("data", packed.data)
        self.register_buffer("scales", packed.scales)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.by_input = by_input

    @property
    def packed(self) -> Packed:
        return Packed(self.data, self.scales)

    @packed.setter
    def packed(self, packed: Packed) -> None:
        self.data, self.scales = packed.data, packed.scales

    @property
    def in_features(self) -> int:
        return int(self.packed.shape[0 if self.by_input else 1])

    @property
    def out_features(self) -> int:
        return int(self.packed.shape[1 if self.by_input else 0])

    def forward(self, x: Tensor) -> Tensor:
        """8 bits are exact in any float, so their scales, one for each output or input, are applied to y or x."""
        held, by = self.packed, self.scales if self.packed.bits == 8 else None
        if by is not None and self.by_input:
            x = (x * by).to(x.dtype)
        size = max(NARROWEST, PIECE // self.in_features // GROUP * GROUP) if x.device.type == "cpu" else 1 << 30
        made = [self._outputs(held, x, first, first + size) for first in range(0, self.out_features, size)]
        y = made[0] if len(made) == 1 else torch.cat(made, -1)
        if by is not None and not self.by_input:
            y = (y * by).to(x.dtype)
        return y if self.bias is None else y + self.bias

    def _outputs(self, held: Packed, x: Tensor, first: int, end: int) -> Tensor:
        """So many of them, without bias, and of 8 bits without scales."""
        some = held.columns(first, end) if self.by_input else held[first:end]
        weight = some.data.to(x.dtype) if some.bits == 8 else some.dequantised(x.dtype)
        return x @ weight if self.by_input else linear(x, weight)

    def sliced(self, ids: Tensor, bias: Tensor | None) -> "QuantisedLinear":
        """The same with only the rows ``ids`` of ``packed``."""
        return QuantisedLinear(self.packed[ids], bias, self.by_input)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.packed.bits}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "QuantisedLinear":
        """Move; a change of dtype is the bias's alone, or scales would be rounded."""
        scales = self.scales
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.scales = scales.to(self.data.device)
        return self

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise CoreInferError("a quantised model is not saved: keep its checkpoint, and quantise it when it is loaded")


def bits_of(model: nn.Module) -> int | None:
    """The fewest bits that a quantised weight of the model has; None if none is."""
    return min((x.packed.bits for x in model.modules() if isinstance(x, QuantisedLinear)), default=None)


def named_dtype(model: Any) -> str:
    """What a model's weights are, as ``--dtype`` names it."""
    bits = bits_of(model)
    return str(model.dtype).removeprefix("torch.") if bits is None else f"int{bits}"
