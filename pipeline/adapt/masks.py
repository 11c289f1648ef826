"""The project's formula in torch, for many segments at once, and the hooks that apply it before every down projection.

    score = (P * prompt + n0 * prior) / (P + n0)          each segment keeps its top k neurons after its prompt

``prompt`` and ``prior`` are shares (``coreinfer.neurons``): the prompt's energies, the mixture of the priors. Nothing
here looks at data to decide what runs next, so that it compiles into one graph; no gradient passes through a decision.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from coreinfer.mlp import Mlp


class Plan(NamedTuple):
    """What a batch's masks are made of; the same for every layer.

    Attributes:
        segment: int64 (B, T), the segment of each token.
        dense: bool (B, T), the tokens that see every neuron.
        counted: bool (B, S, T), each segment's tokens that make its share.
        prompt: bool (B, S, T), those of its prompt.
        mixture: float32 (B, S, K), weights over clusters.
        n0: float32 (B,), 0 to infinity.
        kept: int64 (B,), neurons of a layer, 1 to F.
    """

    segment: Tensor
    dense: Tensor
    counted: Tensor
    prompt: Tensor
    mixture: Tensor
    n0: Tensor
    kept: Tensor


def share(statistic: Tensor) -> Tensor:
    """Normalise (..., F) to sum 1; without any activity it becomes uniform, so that it ranks nothing."""
    total = statistic.sum(-1, keepdim=True)
    return torch.where(total > 0, statistic / torch.where(total > 0, total, 1.0), 1.0 / statistic.shape[-1])


def energy(a: Tensor, tokens: Tensor, column: Tensor) -> Tensor:
    """Activations (B, T, F), which tokens are meant (B, S, T), column energies (F,) -> float32 (B, S, F)."""
    return torch.bmm(tokens.to(a.dtype), a * a).float() * column


def griffin(a: Tensor, tokens: Tensor) -> Tensor:
    """The same of each token's activations over their norm, without columns (``coreinfer.statistic``)."""
    unit = a / a.float().norm(dim=-1, keepdim=True).clamp_min(1e-12).to(a.dtype)
    return torch.bmm(tokens.to(a.dtype), unit * unit).float()


def score(prompt: Tensor, prior: Tensor, tokens: Tensor, n0: Tensor) -> Tensor:
    """The formula above: statistics (B, S, F), prompt tokens P (B, S), n0 (B,) -> (B, S, F)."""
    worth = n0[:, None] / (tokens + n0[:, None]).clamp_min(1e-9)
    of_prior = torch.where(torch.isinf(n0)[:, None], 1.0, worth)[..., None]
    return (1 - of_prior) * share(prompt) + of_prior * share(prior)


def core(scores: Tensor, kept: Tensor) -> Tensor:
    """The ``kept`` (B,) best neurons of scores (B, S, F), bool (B, S, F); all that tie with the last one are core."""
    best = scores.sort(-1, descending=True).values
    last = (kept - 1)[:, None, None].expand(-1, scores.shape[1], 1)
    return scores >= best.gather(-1, last)


def masked(a: Tensor, cores: Tensor, plan: Plan) -> Tensor:
    """Activations (B, T, F), zero where a token is not ``dense`` and the neuron is not its segment's core."""
    mine = cores.gather(1, plan.segment[..., None].expand(-1, -1, a.shape[-1]))
    return torch.where(mine | plan.dense[..., None], a, 0)


class Masks:
    """Hooks before every down projection: between ``start`` and ``stop`` they mask, and gather what segments used.

    ``shares``: of the last forward, each layer's full shares of each segment (B, S, F).
    """

    def __init__(self, mlps: list[Mlp], statistic: str = "energy") -> None:
        self.plan: Plan | None = None
        self.statistic = statistic
        self.priors, self.columns = torch.empty(0), torch.empty(0)
        self.shares: list[Tensor] = []
        self._hooks = [
            # what stands there now: an adapter around the projection must see masked activations too
            mlp.owner._modules[mlp.output].register_forward_pre_hook(self._hook(layer))  # type: ignore[union-attr]
            for layer, mlp in enumerate(mlps)
        ]

    def start(self, plan: Plan, priors: Tensor, columns: Tensor) -> None:
        """Mask the next forward by ``plan``, priors (L, K, F) and column energies (L, F)."""
        self.plan, self.priors, self.columns, self.shares = plan, priors, columns, []

    def stop(self) -> list[Tensor]:
        """Mask no more; returns ``shares``."""
        self.plan = None
        return self.shares

    def remove(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def mask(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self.plan is None:
                return None
            a = args[0].reshape(*self.plan.segment.shape, -1)  # OPT hands over (B * T, F)
            return (masked(a, self._cores(layer, a.detach(), self.plan), self.plan).reshape(args[0].shape), *args[1:])

        return mask

    @torch.no_grad()
    def _cores(self, layer: int, a: Tensor, plan: Plan) -> Tensor:
        with torch.autocast(a.device.type, enabled=False):  # bfloat16 shares would tie by the dozen
            self.shares.append(share(self._statistic(layer, a, plan.counted)))
            prior = plan.mixture @ self.priors[layer]
            prompt = self._statistic(layer, a, plan.prompt)
            return core(score(prompt, prior, plan.prompt.sum(-1).float(), plan.n0), plan.kept)

    def _statistic(self, layer: int, a: Tensor, tokens: Tensor) -> Tensor:
        return griffin(a, tokens) if self.statistic == "griffin" else energy(a, tokens, self.columns[layer])
