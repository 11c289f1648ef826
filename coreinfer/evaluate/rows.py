"""Results -> rows: a policy at a keep after a prompt length, over all texts and over each domain."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.evaluate.bootstrap import intervals
from coreinfer.evaluate.policies import Rungs
from coreinfer.evaluate.scoring import Results

DIGITS = 6
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One policy over the texts. Losses are nats per continuation token, means over texts; intervals are 95% bootstraps
    over texts, None for a single one.

    Attributes:
        statistic: what the policy ranks by; ``none`` for random and dense.
        budgets: ``uniform`` or ``calibrated``, whether layers keep different numbers.
        domain: None for all texts.
        nll: of this policy; ``nll_rise``, ``ci_low``, ``ci_high``: over dense.
        kl: KL(dense || sparse).
        agreement: share of tokens on which dense and sparse find the same one likeliest.
        recall: share of the oracle's neurons that are kept.
        diff_auto, diff_low, diff_high: NLL rise less that of ``auto``, paired by text; None without ``auto``.
        refresh: tokens between refreshes, or auto, for policies that choose again; else None.
        share_similarity, share_stability, share_hybrid: for ``auto``, of the prompts by what it used.
    """

    policy: str
    statistic: str
    budgets: str
    keep: float
    prompt_tokens: int
    continuation_tokens: int
    domain: str | None
    texts: int
    nll: float
    nll_rise: float
    ci_low: float | None
    ci_high: float | None
    kl: float
    agreement: float
    recall: float
    diff_auto: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    share_similarity: float | None = None
    share_stability: float | None = None
    share_hybrid: float | None = None
    refresh: str | None = None


def rows_of(results: Results, rungs: Rungs) -> list[Row]:
    """Dense first, then by keep and policy, for each prompt length; after those of all texts, those of each domain."""
    domains = np.array([text.domain or "" for text in results.texts])
    names = sorted(set(domains.tolist()))
    parts: list[tuple[str | None, NDArray[np.bool_]]] = [(None, np.ones(len(domains), bool))]
    if len(names) > 1:
        parts += [(name or "(none)", domains == name) for name in names]
    lengths = range(len(results.plan.prompt_tokens))
    return [row for name, mask in parts for at in lengths for row in _ladder(results, rungs, at, name, mask)]


def _ladder(results: Results, rungs: Rungs, at: int, domain: str | None, mask: NDArray[np.bool_]) -> Iterator[Row]:
    """The rows of one prompt length and some of the texts."""
    plan, nll = results.plan, results.nll[at, mask]
    numbers, sources = results.numbers[at][:, mask], results.sources[at, mask]  # (r, n, 4), (n,)
    common: dict[str, Any] = {
        "prompt_tokens": plan.prompt_tokens[at], "continuation_tokens": plan.continuation_tokens, "domain": domain,
        "texts": len(nll),
    }  # fmt: skip
    rises, bases = _rises(results, numbers)
    ends = intervals(np.concatenate([rises, rises - bases], 0).T, plan.seed)
    dense = common | _losses(nll.mean(), [0, 0, 1, 1]) | dict.fromkeys(("ci_low", "ci_high"), 0.0 if ends else None)
    yield Row("dense", "none", "none", 1.0, **dense)
    for r, (keep, policy) in enumerate(results.rungs):
        facts: dict[str, Any] = common | _losses(nll.mean(), numbers[r].mean(0)) | _ends(ends, r, "ci")
        if "auto" in rungs.policies:
            facts |= {"diff_auto": _round((rises[r] - bases[r]).mean())} | _ends(ends, len(rises) + r, "diff")
        if policy in rungs.refreshed:
            facts |= {"refresh": str(plan.refresh)}
        if policy == "auto":
            facts |= {f"share_{s}": _round((sources == s).mean()) for s in ("similarity", "stability", "hybrid")}
        yield Row(policy, rungs.statistic(policy), rungs.budgets_kind(policy, keep), keep, **facts)


def _rises(results: Results, numbers: Floats) -> tuple[Floats, Floats]:
    """NLL rises (r, n), and those of ``auto`` at the same keep; zeros without it."""
    rises = numbers[:, :, 0]
    at = {pair: r for r, pair in enumerate(results.rungs)}
    auto = [rises[at[keep, "auto"]] if (keep, "auto") in at else np.zeros_like(rises[0]) for keep, _ in results.rungs]
    return rises, np.reshape(auto, rises.shape)


def _losses(dense: float, means: Any) -> dict[str, float]:
    rise, kl, agreement, recall = (float(x) for x in means)
    made = {"nll": dense + rise, "nll_rise": rise, "kl": kl, "agreement": agreement, "recall": recall}
    return {name: _round(value) for name, value in made.items()}


def _ends(ends: tuple[Floats, Floats] | None, column: int, name: str) -> dict[str, float | None]:
    low, high = (_round(end[column]) for end in ends) if ends else (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _round(value: float) -> float:
    return round(float(value), DIGITS) + 0.0  # no -0.0


def as_rows(rows: list[Row]) -> list[dict[str, Any]]:
    """For JSON and Parquet."""
    return [asdict(row) for row in rows]


def text_rows(results: Results) -> Iterator[dict[str, list[Any]]]:
    """Columns of the numbers of each text, a rung at a time."""
    plan, names = results.plan, [text.name for text in results.texts]
    for p, prompt_tokens in enumerate(plan.prompt_tokens):
        for r, (keep, policy) in enumerate(results.rungs):
            columns = dict(
                zip(("nll_rise", "kl", "agreement", "recall"), results.numbers[p, r].T.tolist(), strict=True)
            )
            yield {
                "text": names, "domain": [text.domain for text in results.texts],
                "prompt_tokens": [prompt_tokens] * len(names), "keep": [keep] * len(names),
                "policy": [policy] * len(names), "dense_nll": results.nll[p].tolist(), **columns,
                "similarity": results.similarities[p].tolist(), "auto_source": results.sources[p].tolist(),
                "rise_by_position": results.windows[p, r].tolist(),
            }  # fmt: skip
