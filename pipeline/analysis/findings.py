"""What was observed, as means over texts with 95% bootstrap intervals, and where that disagrees with the paper."""

import numpy as np

from coreinfer.evaluate.bootstrap import intervals
from pipeline.analysis import paper
from pipeline.analysis.bits import Floats, overlap
from pipeline.analysis.correlation import pairs, spearman
from pipeline.analysis.observe import Observed
from pipeline.analysis.plan import Plan
from pipeline.analysis.records import Cost, Findings, Mean, Near, Pairs, Similar, Stable, Used
from pipeline.analysis.sentences import STATISTICS, by_lot
from pipeline.analysis.tokens import independent

BINS = 8  # of pairs by their cosine, with equally many each


def pairs_of(observed: Observed, vectors: Floats) -> Pairs:
    """``vectors``: unit embeddings (n, d) of the texts whose sets are kept."""
    first, second = pairs(len(vectors))
    overlaps = np.empty((len(STATISTICS), len(first)))
    for i in range(len(vectors) - 1):  # a text with all after it: sets of all pairs at once would not fit
        overlaps[:, first == i] = overlap(observed.sets[i], observed.sets[i + 1 :]).mean(-1).T  # over layers
    return Pairs(len(vectors), np.asarray((vectors @ vectors.T)[first, second], np.float64), overlaps)


def findings(plan: Plan, observed: Observed, costs: tuple[Floats, Floats], paired: Pairs, most: int) -> Findings:
    """``costs``: dense NLL (n,) and rises (n, Q) of ``quality.cost``; ``most``: tokens read of a text at most."""
    seed, (nll, rises) = plan.seed, costs
    priced = {point: _mean(column, seed) for point, column in zip(plan.points, rises.T, strict=True)}
    windows = zip(plan.windows, means(observed.used, seed), strict=True)
    stability = _stability(plan, observed, most)
    similarity = [_similar(i, paired, seed) for i in range(len(STATISTICS))]
    return Findings(
        _mean(nll, seed),
        [Cost(alpha, plan.keep, priced[alpha, plan.keep]) for alpha in plan.alphas],
        [Cost(plan.alpha, keep, priced[plan.alpha, keep]) for keep in plan.keeps],
        [Near(d, m) for d, m in zip(plan.distances, means(observed.near, seed), strict=True) if m],
        _mean(observed.apart, seed),
        [Used(n, m, independent(plan.alpha, n)) for n, m in windows if m],
        stability, similarity, _disagreements(stability, similarity),
    )  # fmt: skip


def means(values: Floats, seed: int) -> list[Mean | None]:
    """Of each column of (n, m), nan left out; None for a column without a number."""
    found = (column[np.isfinite(column)] for column in values.T)
    return [_mean(column, seed) if len(column) else None for column in found]


def _mean(values: Floats, seed: int) -> Mean:
    """Of (n,), n >= 1."""
    ends = intervals(values[:, None], seed)
    low, high = (float(end[0]) for end in ends) if ends else (None, None)
    return Mean(float(values.mean()), low, high, len(values))


def _stability(plan: Plan, observed: Observed, most: int) -> list[Stable]:
    found = []
    for i, statistic in enumerate(STATISTICS):
        for (prompt, more), mean in zip(plan.growths(most), means(observed.stable[:, i], plan.seed), strict=True):
            lot, theirs = None, None
            if statistic == "count":
                lot = by_lot(plan.alpha, plan.keep, prompt, more, plan.seed)
                theirs = paper.STABILITY.get((prompt, more))
            if mean:
                found.append(Stable(statistic, prompt, more, mean, lot, theirs))
    return found


def _similar(which: int, paired: Pairs, seed: int) -> Similar:
    statistic, laps = STATISTICS[which], paired.overlaps[which]
    numbers = spearman(paired.cosines, laps, paired.texts, seed)
    rho, low, high = (number if np.isfinite(number) else None for number in numbers)
    parts = np.array_split(np.argsort(paired.cosines, kind="stable"), min(BINS, len(laps)))
    bins = [(float(paired.cosines[part].mean()), float(laps[part].mean())) for part in parts]
    theirs = paper.SIMILARITY if statistic == "count" else None
    return Similar(statistic, rho, low, high, paired.texts, len(laps), bins, theirs)


def _disagreements(stability: list[Stable], similarity: list[Similar]) -> list[str]:
    ours = {(s.prompt_tokens, s.more_tokens): s.overlap.mean for s in stability if s.paper is not None}
    words = [paper.stability_words(prompt, more, ours.get((prompt, more))) for prompt, more in paper.STABILITY]
    words += [paper.similarity_words(s.spearman, s.pairs) for s in similarity if s.paper is not None]
    return [word for word in words if word]
