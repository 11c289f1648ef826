"""The file: metadata, the list of tensors, then one tensor after another, so that no second model lies in memory."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.decode.network import Network
from coreinfer.errors import CoreInferError
from coreinfer.gguf.kinds import BLOCK, BYTES, QUANTISED, Kind
from coreinfer.gguf.layouts import layout_of
from coreinfer.gguf.metadata import describe, describe_tokens, rope_factors
from coreinfer.gguf.tensors import Part, parts, widths_of
from coreinfer.neurons import NeuronSet
from coreinfer.places import moved_in, writing
from coreinfer.settings import one_of

ENDS = ("token_embd.weight", "output.weight")  # rounded to four bits, these cost the most


def write_gguf(
    path: Path, model: PreTrainedModel, network: Network, neurons: NeuronSet, kind: Kind, tokenizer: Any = None,
    remedy: str = "choose another place",
) -> None:  # fmt: skip
    """Write a model, with these neurons alone, to ``path``; vectors are float32, matrices of the ``kind``.

    ``network`` is the model's (``read_network``). In q8_0 and q4_0, layers are filled up with zero neurons to a
    multiple of 32, and matrices whose rows are no multiple of 32 are bfloat16; in q4_0, embedding and head are q8_0.
    What stands at ``path`` is replaced when all is written.

    Raises:
        CoreInferError: no package ``gguf``, another kind, or the disk refuses; ``remedy`` is what to do then.
    """
    one_of("the kind of GGUF weights", kind, get_args(Kind))
    gguf, layout = library(), layout_of(model)
    widths, whole = planned(model, network, neurons, kind)
    with writing(path, remedy), moved_in(path) as part:
        writer = gguf.GGUFWriter(part, layout.name)
        try:
            describe(writer, model, network, layout, widths)
            describe_tokens(writer, tokenizer, len(network.embedding))
            _write(writer, whole, kind)
        finally:
            writer.close()
        with part.open("rb+") as file:
            os.fsync(file.fileno())


def planned(model: PreTrainedModel, network: Network, neurons: NeuronSet, kind: Kind) -> tuple[list[int], list[Part]]:
    """Each layer's width in the file, and the file's tensors."""
    layout = layout_of(model)
    widths = widths_of(neurons, layout, BLOCK if kind in QUANTISED else 1)
    return widths, list(parts(network, layout, neurons, widths, rope_factors(model, layout)))


def size_of(whole: Sequence[Part], kind: Kind) -> int:
    """Bytes of the tensors in the file."""
    return sum(_bytes(part.shape, _stored(part, kind)) for part in whole)


def library() -> Any:
    """The package ``gguf``."""
    try:
        import gguf
    except ImportError as error:
        raise CoreInferError("GGUF files need the package gguf: pip install 'coreinfer[gguf]'") from error
    return gguf


def _write(writer: Any, whole: Sequence[Part], kind: Kind) -> None:
    types = library().GGMLQuantizationType
    raw = {"f32": types.F32, "bf16": types.BF16, "q8_0": types.Q8_0, "q4_0": types.Q4_0}
    for part in whole:
        stored = _stored(part, kind)
        writer.add_tensor_info(part.name, part.shape, np.dtype(np.float32), _bytes(part.shape, stored), raw[stored])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for part in whole:
        writer.write_tensor_data(encoded(part.make(), _stored(part, kind)))


def _bytes(shape: tuple[int, ...], stored: Kind) -> int:
    """What a tensor takes in the file."""
    return int(math.prod(shape) * BYTES[stored])  # exact: a quantised shape is whole blocks


def _stored(part: Part, kind: Kind) -> Kind:
    """How a tensor is written."""
    if len(part.shape) == 1:
        return "f32"
    if kind in QUANTISED and part.shape[-1] % BLOCK:
        return "bf16"
    return "q8_0" if kind == "q4_0" and part.name in ENDS else kind


def encoded(tensor: Tensor, kind: Kind) -> NDArray[Any]:
    """The tensor as the file holds it: float32, bfloat16's bits, or blocks of 32 numbers with a scale."""
    tensor = tensor.detach().cpu()
    if kind == "bf16":
        return tensor.to(torch.bfloat16).contiguous().view(torch.int16).numpy()
    plain = tensor.float().contiguous().numpy()
    if kind == "f32":
        return plain
    gguf = library()
    blocks: NDArray[Any] = gguf.quants.quantize(plain, gguf.GGMLQuantizationType[kind.upper()])
    return blocks
