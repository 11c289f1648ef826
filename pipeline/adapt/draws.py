"""What a step trains on, drawn from (seed, step) alone: a run that was stopped and goes on draws what it would have."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.capture import valid_tokens
from pipeline.adapt.masks import Plan
from pipeline.adapt.packing import Row, Windows, begins, cut
from pipeline.adapt.settings import AdaptSettings, MaskSettings
from pipeline.adapt.topics import PREFIX, SHORT, WHOLE, Topics


class Draw(NamedTuple):
    """The chances of a batch: prompt lengths int64 (B, S), whether a segment's mixture is of its whole text (B, S), and
    per sequence (B,) whether it is masked, its n0 (float32, 0 to infinity) and its keep.
    """

    prompt: Tensor
    whole: Tensor
    masked: Tensor
    n0: Tensor
    keep: Tensor


class Batch(NamedTuple):
    """Token windows (B, T + 1), the plan of their masks, and what the priors learn: the whole texts' mixtures (B, S, K)
    and which segments count, bool (B, S).
    """

    ids: Tensor
    plan: Plan
    mixture: Tensor
    learned: Tensor

    def parts(self, size: int) -> list["Batch"]:
        """The same in pieces of ``size`` sequences."""
        ids, mixture, learned = (torch.split(x, size) for x in (self.ids, self.mixture, self.learned))
        plans = (Plan(*some) for some in zip(*(torch.split(x, size) for x in self.plan), strict=True))
        return [Batch(*some) for some in zip(ids, plans, mixture, learned, strict=True)]


def log_uniform(rng: np.random.Generator, least: float, most: float, shape: tuple[int, ...]) -> Tensor:
    """Numbers between two bounds, their logarithms uniform; float64."""
    return torch.from_numpy(np.exp(rng.uniform(np.log(least), np.log(most), shape)))


def draw(rng: np.random.Generator, settings: MaskSettings, whole: float, batch: int, segments: int) -> Draw:
    """The chances of ``batch`` windows of ``segments``; the last segment, what was too many, is all prompt."""
    prompt = log_uniform(rng, settings.shortest, settings.longest + 1, (batch, segments)).long()
    prompt[:, -1] = 1 << 30
    policy = torch.from_numpy(rng.random(batch))
    n0 = log_uniform(rng, settings.n0_least, settings.n0_most, (batch,))
    n0[policy < settings.stability] = 0
    n0[policy >= settings.stability + settings.hybrid] = float("inf")
    return Draw(
        prompt,
        torch.from_numpy(rng.random((batch, segments)) < whole),
        torch.from_numpy(rng.random(batch) < settings.share),
        n0.float(),
        torch.from_numpy(rng.uniform(settings.least, settings.most, batch)),
    )


@dataclass(frozen=True)
class Batches:
    """Batches of a row of tokens; ``width`` F, ``bos`` the token that never counts."""

    row: Row
    topics: Topics
    settings: AdaptSettings
    width: int
    bos: int | None

    def at(self, step: int) -> Batch:
        """The batch of a step, on the settings' device."""
        s = self.settings
        rng = np.random.default_rng([s.train.seed, step])
        begin = begins(self._starts, s.context, s.masks.at_text, s.train.batch, rng)
        chances = draw(rng, s.masks, s.priors.whole, s.train.batch, s.train.segments)
        if step < s.masks.unmasked * s.train.steps:
            chances = chances._replace(masked=torch.zeros_like(chances.masked))
        windows = cut(self.row, begin.to(s.device), s.context, s.train.segments)
        return self.plan(windows, Draw(*(x.to(s.device) for x in chances)))

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        return np.asarray(self.row.starts.cpu().numpy(), np.int64)

    def plan(self, windows: Windows, chances: Draw) -> Batch:
        """Windows and chances -> a batch."""
        priors, text = self.settings.priors, windows.text
        beginning = torch.where(chances.whole, WHOLE, PREFIX)
        view = torch.where(chances.prompt < priors.long_from, SHORT, beginning)
        kept = (chances.keep * self.width).long().clamp(1, self.width)
        mixture = self.topics.mixture(view, text)
        plan = make_plan(windows, chances.prompt, chances.masked, mixture, chances.n0, kept, self.bos)
        learned = plan.counted.sum(-1) >= priors.tokens
        learned[:, -1] = False  # several texts at once
        return Batch(windows.ids, plan, self.topics.mixture(torch.full_like(text, WHOLE), text), learned)


def make_plan(
    windows: Windows, prompt: Tensor, masked: Tensor, mixture: Tensor, n0: Tensor, kept: Tensor, bos: int | None
) -> Plan:
    """Where each segment's prompt (B, S) ends and what counts; the rest is passed on."""
    numbers = torch.arange(prompt.shape[1], device=prompt.device)
    inside = windows.place < prompt.gather(1, windows.segment)
    mine = windows.segment[:, None] == numbers[:, None]
    counted = mine & valid_tokens(windows.ids[:, :-1], None, bos)[:, None]
    return Plan(
        segment=windows.segment, dense=inside | ~masked[:, None], counted=counted, prompt=counted & inside[:, None],
        mixture=mixture, n0=n0, kept=kept,
    )  # fmt: skip
