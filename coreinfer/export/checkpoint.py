"""Safetensors files, written a tensor at a time, so that no second model lies in memory; and what lies beside them."""

import json
import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coreinfer.gguf.tensors import Part

DTYPES = {"bf16": torch.bfloat16, "f32": torch.float32}
NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


def write_safetensors(path: Path, parts: Sequence[Part], kind: str, metadata: dict[str, str]) -> None:
    """The format of https://github.com/huggingface/safetensors: the header's length, the header, the tensors' bytes."""
    header: dict[str, Any] = {"__metadata__": metadata}
    at = 0
    for part in parts:
        size = bytes_of(part, kind)
        header[part.name] = {"dtype": NAMES[DTYPES[kind]], "shape": list(part.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            file.write(raw(part.make(), kind))
        file.flush()
        os.fsync(file.fileno())


def bytes_of(part: Part, kind: str) -> int:
    return math.prod(part.shape) * DTYPES[kind].itemsize


def raw(tensor: Tensor, kind: str) -> Any:
    """A tensor's numbers as bytes, little-endian."""
    plain = tensor.detach().cpu().to(DTYPES[kind]).contiguous()
    return plain.flatten().view(torch.uint8).numpy().data


def write_beside(folder: Path, config: Any, model: Any, tokenizer: Any) -> None:
    """What others read beside the weights: a configuration if given, generation's settings, tokenizer, template."""
    if config is not None:
        config.save_pretrained(folder)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
