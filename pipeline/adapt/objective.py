"""What a step minimises: next-token loss on masked neurons and, if wanted, the distance from the dense original."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import PreTrainedModel

from pipeline.adapt.masks import Masks, Plan

Loss = Callable[[Tensor, Plan, Tensor, Tensor, Tensor | None], tuple[Tensor, list[Tensor]]]


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """Logits (B, T, V) and windows (B, T + 1) -> each next token's loss, nats, float32 (B, T)."""
    flat = cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return flat.view(logits.shape[:2])


def divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean over tokens of KL(teacher || student), nats; logits (B, T, V) each."""
    wanted, made = (log_softmax(x.float().flatten(0, 1), -1) for x in (teacher, student))
    return kl_div(made, wanted, reduction="batchmean", log_target=True)


def logits_of(model: PreTrainedModel, ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Windows (B, T + 1) -> logits of their first T tokens (B, T, V), computed in ``dtype``."""
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=dtype is torch.bfloat16):
        made: Tensor = model(input_ids=ids[:, :-1], use_cache=False).logits
    return made


def make_loss(model: PreTrainedModel, masks: Masks | None, dtype: torch.dtype, distill: float) -> Loss:
    """The function (windows, plan, priors, column energies, teacher's logits or None) -> (loss, segments' shares).

    Without ``masks`` it is plain training, at its speed, and no shares are gathered.
    """

    def loss(
        ids: Tensor, plan: Plan, priors: Tensor, columns: Tensor, teacher: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        if masks is not None:
            masks.start(plan, priors, columns)
        logits = logits_of(model, ids, dtype)
        shares = [] if masks is None else masks.stop()
        mean = token_losses(logits, ids).mean()
        if teacher is not None:
            mean = (1 - distill) * mean + distill * divergence(teacher, logits)
        return mean, shares

    return loss
