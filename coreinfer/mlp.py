"""One layer's MLP, and the same MLP with fewer neurons. Nothing here knows a model family.

Shapes: H hidden size, F neurons of the layer, k of them kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from coreinfer.memory.linear import StreamedLinear
from coreinfer.quantised.linear import QuantisedLinear

FUSED = "gate_up_proj"  # gate and up in one matrix, as rows [gate; up]
_FULL = "_coreinfer_full"  # where a gathered module keeps the one that it was gathered from


@dataclass(frozen=True)
class Mlp:
    """One layer's MLP: ``owner.<inputs>`` make the ``width`` neurons, ``owner.<output>`` reads them.

    ``modules`` are the full modules by name, whatever a slim context has put in their place meanwhile.
    """

    owner: nn.Module
    inputs: tuple[str, ...]
    output: str
    width: int
    modules: dict[str, nn.Module]

    @property
    def down(self) -> nn.Module:
        return self.modules[self.output]

    @property
    def device(self) -> torch.device:
        down = self.down
        held: Tensor = down.data if isinstance(down, QuantisedLinear) else down.weight  # type: ignore[assignment]
        return held.device

    @property
    def dtype(self) -> torch.dtype:
        """Of its weights; quantised ones take inputs of any."""
        weight = out_in(self.down)
        return torch.float32 if weight is None else weight.dtype

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.inputs, self.output)


def full(module: nn.Module) -> nn.Module:
    """The module that this one was gathered from, or itself."""
    return cast(nn.Module, module.__dict__.get(_FULL, module))


def out_in(module: nn.Module) -> Tensor | None:
    """The weight of a linear module as (outputs, inputs), whichever way it is stored; None if it is none that we know.

    Known are ``nn.Linear``, ``Conv1D`` and subclasses that hold a weight and a bias and nothing else: what packs,
    quantises or adapts its weights computes something that gathered rows and columns would not.
    """
    if not isinstance(module, nn.Linear | Conv1D):
        return None
    held = {name for name, _ in (*module.named_parameters(), *module.named_buffers(), *module.named_children())}
    weight = module.weight
    if not held <= {"weight", "bias"} or weight.ndim != 2 or not weight.is_floating_point():
        return None
    return weight.T if isinstance(module, Conv1D) else weight


def shape_of(module: nn.Module) -> tuple[int, ...] | None:
    """(outputs, inputs) of a linear module, also of those whose weight is quantised or streamed; None if it is none
    that we know.
    """
    if isinstance(module, QuantisedLinear | StreamedLinear):
        return module.out_features, module.in_features
    weight = out_in(module)
    return None if weight is None else tuple(weight.shape)


def down_rows(mlp: Mlp) -> Tensor:
    """The output projection with one row a neuron: (F, H)."""
    if isinstance(mlp.down, QuantisedLinear):
        return mlp.down.packed.dequantised()
    weight = out_in(mlp.down)
    assert weight is not None
    return weight.T


def gather(module: nn.Module, ids: Tensor, *, rows: bool) -> nn.Module:
    """A copy of a linear module with only the outputs (``rows``) or only the inputs ``ids``; biases included."""
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    slim_bias = None if bias is None else (bias.detach()[ids] if rows else bias.detach())
    made = _gathered(module, ids, slim_bias, rows)
    made.train(module.training)
    made.__dict__[_FULL] = module  # beside the children, not among them
    return made


def _gathered(module: nn.Module, ids: Tensor, slim_bias: Tensor | None, rows: bool) -> nn.Module:
    if isinstance(module, QuantisedLinear):
        assert rows != module.by_input, "a down projection alone is quantised by its inputs"
        return module.sliced(ids, slim_bias)
    transposed = isinstance(module, Conv1D)
    weight: Tensor = module.weight  # type: ignore[assignment]
    axis = int(not rows) ^ int(transposed)  # the axis of ``weight`` that the ids pick from
    slim_weight = weight.detach().index_select(axis, ids).contiguous()
    outputs, inputs = slim_weight.shape[::-1] if transposed else slim_weight.shape
    with torch.device("meta"):  # the class is kept: Falcon's linear layers compute differently from nn.Linear
        kind: Any = nn.Linear if isinstance(module, StreamedLinear) else type(module)
        made = kind(outputs, inputs) if transposed else kind(inputs, outputs, bias=slim_bias is not None)
    made.weight = nn.Parameter(slim_weight, requires_grad=False)
    made.bias = None if slim_bias is None else nn.Parameter(slim_bias, requires_grad=False)
    return cast(nn.Module, made)


def gather_mlp(mlp: Mlp, ids: NDArray[np.int32]) -> dict[str, nn.Module]:
    """The modules of ``mlp`` for the neurons ``ids`` (k,) only, by name."""
    kept = torch.from_numpy(ids.astype(np.int64)).to(mlp.device)
    rows = torch.cat([kept, kept + mlp.width]) if mlp.inputs == (FUSED,) else kept
    made = {name: gather(mlp.modules[name], rows, rows=True) for name in mlp.inputs}
    return {**made, mlp.output: gather(mlp.down, kept, rows=False)}


@contextmanager
def watching(mlps: Sequence[Mlp], hook: Callable[[int], Any]) -> Iterator[None]:
    """``hook(layer)`` is a forward pre-hook of that layer's down projection, inside this context."""
    handles = [mlp.down.register_forward_pre_hook(hook(layer)) for layer, mlp in enumerate(mlps)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def put(mlp: Mlp, modules: dict[str, nn.Module]) -> None:
    """Let the MLP compute with these modules; ``nn.Module.__setattr__`` would take forty times as long, per token."""
    mlp.owner._modules.update(modules)


@contextmanager
def using(mlp: Mlp, modules: dict[str, nn.Module]) -> Iterator[None]:
    """``put``, and the full modules again afterwards."""
    put(mlp, modules)
    try:
        yield
    finally:
        put(mlp, mlp.modules)
