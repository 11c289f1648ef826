"""The clusters' mean shares, learned while a model trains: they follow its changing neurons, no recording needed.

An exponential moving average: a cluster that got the weight n in a batch forgets 1 - (1 - rate)^n of what it knew.
"""

import torch
from torch import Tensor


class Priors:
    """Mean shares, float32 (L, K, F), uniform at first: so they rank nothing, and a mask made of them keeps all."""

    def __init__(self, layers: int, clusters: int, width: int, rate: float, device: str) -> None:
        self.shares = torch.full((layers, clusters, width), 1.0 / width, device=device)
        self.rate = rate

    @torch.no_grad()
    def learn(self, shares: list[Tensor], weights: Tensor, counts: Tensor) -> None:
        """Segments' shares (B, S, F) of each layer, their weights over clusters (B, S, K), and which of them are to be
        learned from: ``counts``, bool (B, S).
        """
        used = (weights * counts[..., None]).flatten(0, 1)
        total = used.sum(0)
        forget = (1 - (1 - self.rate) ** total)[:, None]
        for known, seen in zip(self.shares, shares, strict=True):
            mean = (used.T @ seen.float().flatten(0, 1)) / total.clamp_min(1e-6)[:, None]
            known += forget * (mean - known)
