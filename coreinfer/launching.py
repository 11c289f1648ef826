"""Kernels run where their tensors are."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch


def launching_on(device: torch.device) -> AbstractContextManager[Any]:
    """Triton launches on the current device."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
