"""Core-mask-aware training: from a random position on, a sequence sees only the core neurons of what came before.

A model trained like this loses several times less when it later decodes on a fixed neuron set. For a share of the
sequences, each layer keeps, after the split, only the neurons with the highest energy over the tokens before it.
Shapes: B sequences, T tokens, F neurons.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from coreinfer.models import find_mlps
from coreinfer.statistic import column_energy

LEAST, MOST = 0.15, 0.7  # keep is drawn uniformly between these
EARLIEST, LATEST = 16, 256  # and the split between these positions


def core_masked(a: Tensor, column: Tensor, split: Tensor, kept: Tensor) -> Tensor:
    """Activations (B, T, F) with all but ``kept`` (B,) neurons zeroed from position ``split`` (B,) on.

    The neurons kept are those with the highest energy before the split; ``column`` (F,) holds ``column_energy``.
    A split of T or more leaves a sequence whole.
    """
    before = torch.arange(a.shape[1], device=a.device)[None, :, None] < split[:, None, None]
    energy = (a.detach().float().square() * before).sum(1) * column
    rank = energy.argsort(dim=-1, descending=True, stable=True).argsort(-1)
    core = (rank < kept[:, None])[:, None]
    return torch.where(before | core, a, 0)


class CoreMask:
    """Puts ``core_masked`` before every down projection of a model; ``draw`` or ``fix`` says where, per batch."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.split: Tensor | None = None
        self.kept: Tensor | None = None
        self.mlps = find_mlps(model)
        self._hooks = [mlp.down.register_forward_pre_hook(self._mask) for mlp in self.mlps]

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _mask(self, down: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.split is None or self.kept is None:
            return None
        column = column_energy(down.weight.detach().T)  # type: ignore[operator]
        return (core_masked(args[0], column, self.split, self.kept),)

    def draw(self, batch: int, length: int, share: float, device: str) -> None:
        """Splits and numbers of neurons for a training batch; ``share`` of its sequences are masked at all."""
        masked = torch.rand(batch, device=device) < share
        split = torch.randint(min(EARLIEST, length - 1), min(LATEST, length), (batch,), device=device)
        keep = LEAST + (MOST - LEAST) * torch.rand(batch, device=device)
        self.split = torch.where(masked, split, length)
        self.kept = (keep * self.mlps[0].width).long()

    def fix(self, batch: int, split: int, keep: float, device: str) -> None:
        """The same split and keep for every sequence; keep 1 is dense."""
        self.split = torch.full((batch,), split, device=device)
        self.kept = torch.full((batch,), round(keep * self.mlps[0].width), device=device)
