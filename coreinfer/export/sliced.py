"""A Hugging Face model's tensors by their own names, its MLPs with a set's neurons alone.

W is a layer's width in the file: the neurons kept, and zero neurons where the reader knows one width for all layers. A
zero neuron's output column is zero, so whatever the activation makes of it adds nothing.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coreinfer.errors import CoreInferError
from coreinfer.gguf.tensors import Part
from coreinfer.mlp import FUSED, Mlp
from coreinfer.models import find_mlps, structure
from coreinfer.neurons import NeuronSet

FIELDS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")  # where configurations keep F


def parts(model: PreTrainedModel, neurons: NeuronSet, widths: Sequence[int]) -> Iterator[Part]:
    """Every tensor once: of those that share their storage, the first, as a checkpoint has them.

    Raises:
        CoreInferError: a tensor of whole numbers.
    """
    cut, seen = _cuts(model, neurons, widths), set[tuple[int, tuple[int, ...]]]()
    for name, tensor in model.state_dict().items():
        key = tensor.data_ptr(), tuple(tensor.shape)
        if key in seen and tensor.numel():
            continue
        seen.add(key)
        if not tensor.is_floating_point():
            raise CoreInferError(f"{name} is {tensor.dtype}, and an export holds floats alone: give another model")
        yield cut[name](name, tensor) if name in cut else Part(name, tuple(tensor.shape), _itself(tensor))


def _itself(tensor: Tensor) -> Any:
    return lambda: tensor


def _cuts(model: PreTrainedModel, neurons: NeuronSet, widths: Sequence[int]) -> dict[str, Any]:
    """By a tensor's name, what makes a Part of it: those that have a row or a column a neuron."""
    out = dict[str, Any]()
    paths = {module: path for path, module in model.named_modules()}
    for mlp, ids, width in zip(find_mlps(model), neurons.layers, widths, strict=True):
        picks = torch.from_numpy(ids).long()
        for name in mlp.names:
            transposed = isinstance(mlp.modules[name], Conv1D)
            is_output = name == mlp.output
            path = paths[mlp.modules[name]]
            out[f"{path}.weight"] = _cutter(mlp, name, picks, width, int(is_output) ^ int(transposed))
            if not is_output:
                out[f"{path}.bias"] = _cutter(mlp, name, picks, width, 0)
    return out


def _cutter(mlp: Mlp, name: str, ids: Tensor, width: int, axis: int) -> Any:
    """Those of ``ids`` along an axis of F neurons, or of gate and up in turn, and zeros behind them up to W."""
    pieces = 2 if name == FUSED else 1

    def cut(at: str, tensor: Tensor) -> Part:
        shape = list(tensor.shape)
        shape[axis] = width * pieces

        def make() -> Tensor:
            found = [_padded(one.index_select(axis, ids), width, axis) for one in tensor.chunk(pieces, axis)]
            return torch.cat(found, axis) if pieces > 1 else found[0]

        return Part(at, tuple(shape), make)

    return cut


def _padded(tensor: Tensor, width: int, axis: int) -> Tensor:
    missing = width - tensor.shape[axis]
    return pad(tensor, (0, 0) * (tensor.ndim - 1 - axis) + (0, missing)) if missing else tensor


def config_of(model: PreTrainedModel, width: int, dtype: torch.dtype) -> Any:
    """The model's configuration with another width, such that Transformers makes the sliced model of it.

    Raises:
        CoreInferError: a configuration that does not say its width where others do.
    """
    config: Any = deepcopy(model.config)
    inner = config.get_text_config()
    names = [name for name in FIELDS if hasattr(inner, name)]
    for name in names:
        setattr(inner, name, width)
    config.dtype, config.architectures = dtype, [type(model).__name__]
    if names:
        kind: Any = type(model)
        with torch.device("meta"):
            made = structure(kind(deepcopy(config)))
        if made[0].width == width:
            return config
    raise CoreInferError(
        f"Transformers makes no {type(model).__name__} with {width} neurons a layer: export to safetensors, which has "
        "the tensors alone"
    )
