"""A module's weight as a view of a larger tensor, which others take for an ordinary one.

What computes reads a view like any weight. What saves does not: ``save_pretrained`` and safetensors refuse tensors with
gaps, or that share memory. So the module's state, and with it the model's, has copies of them.
"""

from typing import Any

import torch
from torch import Tensor, nn


def become(module: nn.Module, view: Tensor) -> None:
    """Let the weight of ``module`` be ``view``; its ``state_dict`` goes on holding tensors of their own."""
    weight: Any = module.weight
    weight.data = view
    if _of_its_own not in module._state_dict_hooks.values():
        module.register_state_dict_post_hook(_of_its_own)  # type: ignore[no-untyped-call]


def _of_its_own(module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
    """A parameter itself, which ``keep_vars`` asks for, stays what it is."""
    held = state[f"{prefix}weight"]
    if not isinstance(held, nn.Parameter) and held.untyped_storage().nbytes() > held.nbytes:
        state[f"{prefix}weight"] = held.clone(memory_format=torch.contiguous_format)
