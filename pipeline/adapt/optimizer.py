"""AdamW, its learning rate by step, and its state by parameter name, so that it can be stored without pickles."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.adapt.settings import TrainSettings

MOMENTS = ("exp_avg", "exp_avg_sq")


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that change, by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def make_optimizer(parameters: list[nn.Parameter], settings: TrainSettings) -> torch.optim.AdamW:
    """Norms and biases do not decay."""
    matrices, vectors = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    groups = [
        {"params": some, "weight_decay": decay}
        for some, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
        if some
    ]
    fused = parameters[0].device.type == "cuda"
    return torch.optim.AdamW(groups, lr=settings.full_rate, betas=(0.9, 0.95), fused=fused)


def rate_at(step: int, settings: TrainSettings) -> float:
    """The learning rate of a step, from 0: a warm-up, a flat part, a straight way down."""
    warmup = min(settings.warmup, max(1, settings.steps // 10))
    done = step / settings.steps
    down = 1.0 if done < settings.flat else max(settings.last, 1 - (done - settings.flat) / (1 - settings.flat))
    return settings.full_rate * min(1.0, (step + 1) / warmup) * down


def moments(optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """``exp_avg.NAME`` and ``exp_avg_sq.NAME`` of every parameter that was stepped."""
    state = optimizer.state
    return {f"{kind}.{name}": state[p][kind] for name, p in names.items() if p in state for kind in MOMENTS}


def restore_moments(
    optimizer: torch.optim.Optimizer, names: dict[str, nn.Parameter], stored: dict[str, Tensor], step: int
) -> None:
    """The inverse of ``moments``, after ``step`` steps."""
    raw: dict[str, Any] = optimizer.state_dict()
    order = [p for group in optimizer.param_groups for p in group["params"]]
    name_of = {p: name for name, p in names.items()}
    raw["state"] = {
        i: {"step": torch.tensor(float(step)), **{kind: stored[f"{kind}.{name_of[p]}"] for kind in MOMENTS}}
        for i, p in enumerate(order)
    }
    optimizer.load_state_dict(raw)
