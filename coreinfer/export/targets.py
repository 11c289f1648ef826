"""What models can be exported to, and what keeps one from it, in words."""

from typing import Any

import torch
from transformers import PreTrainedModel

from coreinfer.decode.families import unsupported
from coreinfer.errors import CoreInferError
from coreinfer.export.sliced import config_of
from coreinfer.gguf.layouts import unwritable
from coreinfer.models import find_mlps


def why_not(target: str, model: PreTrainedModel) -> str | None:
    """What is in the way of this model in that runtime; None if nothing is."""
    if target == "gguf":
        return unwritable(model)
    if target == "onnx":
        return unsupported(model)
    if target == "transformers":
        try:
            config_of(model, max(1, find_mlps(model)[0].width // 2), torch.float32)
        except CoreInferError as error:
            return str(error)
    return None


def check_target(target: str, model: PreTrainedModel, all_targets: tuple[str, ...]) -> None:
    """
    Raises:
        CoreInferError: the runtime cannot hold the model; the message says which can.
    """
    if (why := why_not(target, model)) is not None:
        fine = [name for name in all_targets if name != target and why_not(name, model) is None]
        kind: Any = type(model).__name__
        raise CoreInferError(f"{target} cannot hold this {kind}: {why}; it can go --to {', '.join(fine)}")
