"""Which statistic to record: the one whose sets cost held-out texts least, before any corpus is recorded with it.

No statistic is best on every model. Energy weighs an activation by its down column and lets loud tokens speak louder;
griffin does neither, and on Gemma 3 costs a seventh to a quarter less. So each is tried as
``hybrid`` would use it: a text's prompt, and the other texts in place of clusters, under uniform budgets.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, split
from transformers import PreTrainedModel

from coreinfer.capture import Reducer
from coreinfer.evaluate.masked import Statistics, Truth
from coreinfer.models import find_mlps
from coreinfer.neurons import blend, places, uniform_budgets
from coreinfer.settings import PolicySettings, StatisticSettings
from pipeline.calibration import numbers
from pipeline.calibration.sample import batch_size
from pipeline.data import Remember, forget

LEAST, MOST = 8, 32  # texts
PROMPT = 64  # tokens
TRIED = (StatisticSettings("energy"), StatisticSettings("griffin"), StatisticSettings("count"))

Shares = NDArray[np.float64]


def choose_statistic(
    model: PreTrainedModel, ids: Tensor, keep: float, tick: Callable[[int], Any] = lambda n: None,
    remember: Remember = forget,
) -> tuple[StatisticSettings, list[dict[str, Any]]]:  # fmt: skip
    """The statistic, and the table that it was chosen from; energy and no table if there are too few texts.

    ``ids`` (n, P + C) of held-out texts, P = ``PROMPT``; at the wanted ``keep`` and half of it.
    """
    if len(ids) < LEAST:
        return TRIED[0], []
    some, keeps = ids[:MOST], (keep / 2, keep)

    def measure() -> list[NDArray[np.float64]]:
        others = _whole(model, some)
        return [np.concatenate([_costs(truth, others, at, keeps, tick) for at, truth in _truths(model, some)])]

    (costs,) = remember("choose statistic", {"keeps": list(keeps)}, measure)  # (texts, statistics, keeps)
    table = [
        {"statistic": tried.kind, "keeps": list(keeps), "rise": np.round(rise, 5).tolist()}
        for tried, rise in zip(TRIED, costs.mean(0), strict=True)
    ]
    return TRIED[numbers.best(costs.mean(-1))], table


def _truths(model: PreTrainedModel, ids: Tensor) -> Iterator[tuple[int, Truth]]:
    """The texts in batches, dense, and where each batch begins."""
    mlps = find_mlps(model)
    reducers, at = [Reducer(mlps, tried) for tried in TRIED], 0
    for some in split(ids, batch_size(model, ids.shape[1] - PROMPT)):
        yield at, Truth(model, mlps, some.to(model.device), PROMPT, reducers)
        at += len(some)


def _whole(model: PreTrainedModel, ids: Tensor) -> list[Shares]:
    """Each statistic's shares of whole texts, (n, L, F) each."""
    found = [[_together(s) for s in truth.statistics] for _, truth in _truths(model, ids)]
    return [np.concatenate(some) for some in zip(*found, strict=True)]


def _together(part: Statistics) -> Shares:
    """Prompts and continuations of B texts, (B, L, F); about alike long."""
    return (part.prompt + part.continuation) / 2


def _costs(
    truth: Truth, others: Sequence[Shares], at: int, keeps: Sequence[float], tick: Callable[[int], Any]
) -> NDArray[np.float64]:
    """NLL rises of a batch's texts, (B, statistics, keeps)."""
    n0, columns = PolicySettings().n0, list[NDArray[np.float64]]()
    for mine, whole in zip(truth.statistics, others, strict=True):
        total, texts = whole.sum(0), range(at, at + len(mine.prompt))
        priors = ((total - whole[i]) / (len(whole) - 1) for i in texts)  # of the other texts
        scored = zip(mine.prompt, priors, mine.tokens, strict=True)
        ranks = np.stack([places(blend(prompt, prior, int(tokens), n0)) for prompt, prior, tokens in scored])
        for keep in keeps:
            budget = uniform_budgets(keep, *ranks.shape[1:])[0]
            columns.append(truth.rises(ranks < budget).mean(1, dtype=np.float64))
            tick(len(ranks))
    return np.stack(columns, 1).reshape(len(columns[0]), len(TRIED), len(keeps))
