"""A model's linear modules on memory laid out for decoding, which they become views of."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from coreinfer.decode import views
from coreinfer.decode.network import Weight
from coreinfer.memory.linear import StreamedLinear
from coreinfer.quantised.linear import QuantisedLinear
from coreinfer.quantised.packed import Packed, joined, stacked

LINEAR = (nn.Linear, StreamedLinear, QuantisedLinear)  # and no class of others: their weights cannot be laid out anew
Linear = nn.Linear | QuantisedLinear


def weight_of(module: Linear) -> Weight:
    """(outputs, inputs); a quantised down projection's a neuron a row, (inputs, outputs)."""
    return module.packed if isinstance(module, QuantisedLinear) else module.weight.detach()


def _become(module: Linear, weight: Any) -> None:
    """Let the module compute with this memory, which holds what ``weight_of`` gave."""
    if isinstance(module, QuantisedLinear):
        module.packed = weight
    else:
        views.become(module, weight)


def packed(linears: Sequence[Linear]) -> Weight:
    """The weights (n_i, H) one below another, (sum n_i, H); the modules become views of that, unless they are."""
    parts: list[Any] = [weight_of(x) for x in linears]
    if len(parts) == 1:
        return cast(Weight, parts[0])
    if isinstance(parts[0], Tensor) and (lying := _lying_together(parts)) is not None:
        return lying
    whole: Weight = joined(parts) if isinstance(parts[0], Packed) else torch.cat(parts)
    first = 0
    for module in linears:
        _become(module, whole[first : first + module.out_features])
        first += module.out_features
    return whole


def _lying_together(weights: Sequence[Tensor]) -> Tensor | None:
    """The whole that these weights are views of, one below another, if they are."""
    first, rows = weights[0], sum(len(w) for w in weights)
    at, storage = first.storage_offset(), first.untyped_storage().data_ptr()
    for w in weights:
        if w.untyped_storage().data_ptr() != storage or w.storage_offset() != at or not w.is_contiguous():
            return None
        at += w.numel()
    return first.as_strided((rows, first.shape[1]), first.stride())


def neurons_of(inputs: Sequence[Linear], down: Linear, bundle: bool) -> tuple[tuple[Weight, ...], Weight | None]:
    """A layer's ``rows`` and ``neurons``; of streamed ones the shapes alone."""
    if isinstance(down, StreamedLinear):
        parts = 3 if _fused(inputs, down) else len(inputs) + 1
        return (torch.empty(down.in_features, down.out_features, device="meta"),) * parts, None
    if not bundle:
        return _rows(inputs, down), None
    whole = bundled(inputs, down)
    return tuple(whole[:, part] for part in range(whole.shape[1])), whole


def _rows(inputs: Sequence[Linear], down: Linear) -> tuple[Any, ...]:
    """The neurons' input rows and down columns where they lie, (F, H) each."""
    rows, columns, width = [weight_of(x) for x in inputs], weight_of(down), down.in_features
    if _fused(inputs, down):
        rows = [rows[0][:width], rows[0][width:]]
    return (*rows, columns if isinstance(columns, Packed) else columns.T)


def _fused(inputs: Sequence[Linear], down: Linear) -> bool:
    """Whether one module holds gate and up together."""
    return inputs[0].out_features == 2 * down.in_features


def bundled(inputs: Sequence[Linear], down: Linear) -> Weight:
    """(F, P, H): each neuron's input rows and its down column; the modules become views of that.

    A module that holds gate and up together cannot: its 2 F rows would need two strides. It stays as it is, beside the
    bundle.
    """
    rows = _rows(inputs, down)
    whole: Weight = stacked(rows) if isinstance(rows[0], Packed) else torch.stack(rows, 1)
    if not _fused(inputs, down):
        for part, module in enumerate(inputs):
            _become(module, whole[:, part])
    columns = whole[:, -1]
    _become(down, columns if isinstance(columns, Packed) else columns.T)
    return whole


def joined_bias(linears: Sequence[Linear]) -> Tensor | None:
    """Their biases in a row, float32, if they have any."""
    found: list[Any] = [x.bias for x in linears]
    return None if found[0] is None else torch.cat([x.detach().float() for x in found])


def in_bias(inputs: Sequence[Linear], width: int) -> Tensor | None:
    """(P - 1, F)."""
    found = joined_bias(inputs)
    return None if found is None else found.view(-1, width)
