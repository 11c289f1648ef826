"""The calibration in order: layer budgets, sensitivity, mixture, source and n0, threshold, and the curve that
``--max-loss`` reads.

Every choice is the one that costs least on the same held-out texts, so the curve is a little optimistic: texts that
nothing was chosen on, as ``evaluate`` takes them, say more.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.progress import Stage, unseen
from coreinfer.settings import PolicySettings, Source
from pipeline.calibration import budgets, numbers
from pipeline.calibration.doubts import PROMPTS, usual_doubt
from pipeline.calibration.layers import ROUNDS, layer_budgets
from pipeline.calibration.sample import Case, Lab, Plan, cases, rises
from pipeline.calibration.sensitivity import POWERS, sensitivity, weights
from pipeline.data import Remember, forget

LEAST, MOST = 24, 96  # texts: with fewer, chance would choose; with more, it takes longer and changes little
CONTINUATION = 64  # tokens
TOKENS = max(PROMPTS) + CONTINUATION  # that a text needs
WHATEVER_KEEP = ("layer budgets",)  # steps that measure the same at any default keep
CURVE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)


@dataclass(frozen=True)
class Calibrated:
    """What was found: the policy's numbers, budgets at each keep of ``grid`` (n, L), neurons' weights (L, F), and what
    they were chosen from.
    """

    policy: PolicySettings
    sensitivity: NDArray[np.float32]
    grid: tuple[float, ...]
    budgets: NDArray[np.int64]
    evidence: dict[str, Any]


def usable(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], tokens: int = TOKENS) -> torch.Tensor:
    """Ids (n, ``tokens``) of the first ``MOST`` texts that are long enough; ``calibrate`` needs ``LEAST`` of them."""
    rows = tokenizer(list(texts), truncation=True, max_length=tokens, verbose=False)["input_ids"] if texts else []
    long = [row for row in rows if len(row) == tokens][:MOST]
    return torch.tensor(long, dtype=torch.long).reshape(-1, tokens)


def plans(layers: int, clusters: int) -> int:
    """How many plans of neurons ``calibrate`` runs each text under, about."""
    alone, weighed = layers * len(budgets.KEEPS), ROUNDS * (1 + layers)
    compared, sensed, mixed = 3 * 3, 2 * len(POWERS), sum(m <= clusters for m, _ in numbers.MIXTURES)
    sources, weak = len(PROMPTS) * (len(numbers.N0) + 1), 1 + 5 * (len(numbers.WORTH) - 1)
    return alone + weighed + compared + sensed + mixed + sources + weak + len(CURVE)


def calibrate(
    lab: Lab, ids: torch.Tensor, grid: Sequence[float], stage: Stage = unseen, remember: Remember = forget
) -> Calibrated:
    """Choose everything for ``lab.artifact``, whose own budgets stay unless others cost less; ``ids``: ``usable``. What
    each step measures is kept by ``remember``: every choice follows from that.
    """
    keep = lab.artifact.manifest.default_keep
    bench = _Bench(lab, ids, stage, remember)
    trusting = {"threshold": -1.0, "strong": -1.0, "doubt": 1.0, "doubt_fall": 0.0}  # until more is known
    open_to_all = numbers.with_policy(lab.artifact, **trusting)
    artifact, layers = layer_budgets(bench.costs, open_to_all, grid)
    artifact, weighed = _sensitivity(bench, artifact, keep)
    artifact, mixtures = _mixture(bench, artifact, keep)
    artifact, found = _source(bench, artifact, keep)
    artifact, doubts, _ = usual_doubt(lab, artifact, ids, stage("doubt", len(ids) * len(PROMPTS)))
    artifact, fallback = _fallback(bench, artifact, keep)
    evidence = {"texts": len(ids), "prompt_tokens": list(PROMPTS), "continuation_tokens": CONTINUATION, "keep": keep}
    evidence |= {"layers": layers, "sensitivity": weighed, "mixtures": mixtures, "sources": found}
    evidence |= {"doubts": doubts, "fallback": fallback}
    table = np.stack([artifact.budgets(k) for k in grid])
    made = artifact.policy, artifact.sensitivity, tuple(grid), table
    return Calibrated(*made, evidence | {"curve": _curve(bench, artifact)})


@dataclass(frozen=True)
class _Bench:
    lab: Lab
    ids: torch.Tensor
    stage: Stage
    remember: Remember

    def cases(self, prompt_tokens: int) -> Iterator[Case]:
        return cases(self.lab, self.ids[:, : prompt_tokens + CONTINUATION], prompt_tokens)

    def rises(
        self, name: str, plans: Sequence[Plan], prompts: Sequence[int] = PROMPTS[:1]
    ) -> list[tuple[NDArray[np.float64], NDArray[np.float32]]]:
        """``sample.rises`` after prompts of each length, as the stage ``name``."""
        tick = self.stage(name, len(self.ids) * len(plans) * len(prompts))
        facts = {} if name in WHATEVER_KEEP else {"keep": self.lab.artifact.manifest.default_keep}

        def measure() -> list[NDArray[Any]]:
            return [array for p in prompts for array in rises(self.cases(p), plans, tick)]

        found = iter(self.remember(name, facts, measure))
        return [(np.array(costs), np.array(near)) for costs, near in zip(found, found, strict=True)]

    def costs(self, name: str, plans: Sequence[Plan]) -> NDArray[np.float64]:
        return self.rises(name, plans)[0][0]


def _sensitivity(bench: _Bench, artifact: Artifact, keep: float) -> tuple[Artifact, list[dict[str, float]]]:
    """How far the measured gradients count; for energy, whose columns they replace, and griffin, which has none."""
    kind = artifact.manifest.statistic.kind
    if kind == "count":
        return artifact, []
    tick = bench.stage("gradients", len(bench.ids))
    (ratio,) = bench.remember(
        "gradients", {}, lambda: [sensitivity(bench.lab.model, bench.ids, kind == "energy", tick)]
    )
    tried = [replace(artifact, sensitivity=weights(ratio, power)) for power in POWERS]
    keeps = [keep / 2, keep]
    costs = bench.costs("sensitivity", [budgets.kept(a.budgets(k), a, "hybrid") for a in tried for k in keeps])
    means = costs.reshape(len(costs), len(tried), len(keeps)).mean(-1)
    rows = [{"power": p, "rise": round(float(c), 5)} for p, c in zip(POWERS, means.mean(0), strict=True)]
    return tried[numbers.best(means)], rows


def _mixture(bench: _Bench, artifact: Artifact, keep: float) -> tuple[Artifact, list[dict[str, Any]]]:
    """How many clusters to mix, and how sharply."""
    tried = numbers.mixtures(artifact)
    costs = bench.costs("mixture", [budgets.kept(a.budgets(keep), a, "similarity") for a in tried])
    first = next((i for i, a in enumerate(tried) if a.policy == artifact.policy), 0)
    rows = [
        {"mixture": a.policy.mixture, "sharpness": a.policy.sharpness, "rise": round(float(c), 5)}
        for a, c in zip(tried, costs.mean(0), strict=True)
    ]
    return tried[numbers.best(costs, first)], rows


def _source(bench: _Bench, artifact: Artifact, keep: float) -> tuple[Artifact, list[dict[str, Any]]]:
    """What a strong match uses, over both prompt lengths: similarity, or hybrid with an n0."""
    tried = numbers.sources(artifact)
    plans = [budgets.kept(a.budgets(keep), a, source) for a, source in tried]
    costs = [c for c, _ in bench.rises("source and n0", plans, PROMPTS)]
    usual = numbers.N0.index(PolicySettings.n0)  # on texts from elsewhere, hybrid loses less than similarity
    at = numbers.best(np.concatenate(costs), usual)
    rows = [
        {"source": source, "n0": a.policy.n0 if source == "hybrid" else None}
        | {f"rise_{p}": round(float(c.mean(0)[i]), 5) for p, c in zip(PROMPTS, costs, strict=True)}
        for i, (a, source) in enumerate(tried)
    ]
    chosen, source = tried[at]
    return numbers.with_policy(chosen, auto=source), rows


def _fallback(bench: _Bench, artifact: Artifact, keep: float) -> tuple[Artifact, list[dict[str, Any]]]:
    """What weaker matches are worth, from texts whose nearest clusters are left out."""
    left = numbers.skips(len(artifact.centroids), artifact.policy.mixture)
    worth = numbers.WORTH if artifact.policy.auto == "hybrid" else (0.0, 1.0)
    tried = [numbers.with_policy(artifact, n0=share * artifact.policy.n0) for share in worth[1:]]
    counts, source = artifact.budgets(keep), artifact.policy.auto
    plans = [budgets.kept(counts, artifact, "stability")]
    plans += [budgets.kept(counts, a, source, skip) for skip in left for a in tried]
    ((costs, near),) = bench.rises("threshold", plans)
    alone = np.repeat(costs[:, None, :1], len(left), 1)
    surface = np.concatenate([alone, costs[:, 1:].reshape(len(costs), len(left), -1)], 2)  # (text, left out, worth)
    seen = near[:, left].ravel()
    if source == "hybrid":
        low, high = numbers.ramp(seen, surface.reshape(-1, len(worth)), worth)
    else:
        low = high = numbers.threshold(seen, surface[..., -1].ravel(), surface[..., 0].ravel())
    rows = [
        {"left_out": skip, "similarity": round(float(s), 4), "worth": list(worth), "rise": np.round(c, 5).tolist()}
        for skip, s, c in zip(left, near[:, left].mean(0), surface.mean(0), strict=True)
    ]
    return numbers.with_policy(artifact, threshold=low, strong=high), rows


def _curve(bench: _Bench, artifact: Artifact) -> list[dict[str, float]]:
    """What ``auto`` costs at each keep: the mean and the upper end of its 95% interval over texts."""
    plans = [_auto(artifact, artifact.budgets(keep)) for keep in CURVE]
    costs = bench.costs("curve", plans)
    half = 1.96 * costs.std(0, ddof=1) / np.sqrt(len(costs))
    rows = zip(CURVE, costs.mean(0).round(5).tolist(), (costs.mean(0) + half).round(5).tolist(), strict=True)
    return [{"keep": keep, "rise": rise, "rise_high": high} for keep, rise, high in rows]


def _auto(artifact: Artifact, counts: NDArray[np.int64]) -> Plan:
    strong: Source = artifact.policy.auto

    def plan(case: Case) -> NDArray[np.bool_]:
        weak = case.similarities[:, 0] < artifact.policy.threshold
        ranks = (case.ranks(artifact, source) for source in ("stability", strong))
        fallback, match = (r < counts[:, None] for r in ranks)
        return np.where(weak[:, None, None], fallback, match)

    return plan
