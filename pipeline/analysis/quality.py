"""What the sets of the paper cost: prompt dense, then its true continuation on the neurons that the prompt counts most.

Shapes: n texts of P prompt and C continuation tokens, a *point* is one (alpha, keep), Q points.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from coreinfer.capture import Reducer
from coreinfer.errors import CoreInferError
from coreinfer.evaluate.masked import Truth
from coreinfer.evaluate.plan import Text
from coreinfer.evaluate.scoring import batch_size
from coreinfer.models import find_mlps
from coreinfer.neurons import places, uniform_budgets
from pipeline.analysis.bits import Floats
from pipeline.analysis.plan import Plan


def cost(
    model: PreTrainedModel, texts: Sequence[Text], plan: Plan, tick: Callable[[int], Any] = lambda n: None
) -> tuple[Floats, Floats]:
    """The dense NLL (n,), and its rise at each of ``plan.points`` (n, Q), nats per continuation token.

    Raises:
        CoreInferError: a loss that is not a number, with the text's name.
    """
    size = batch_size(plan.continuation_tokens, model.config.get_text_config().vocab_size)
    mlps, alphas = find_mlps(model), list(dict.fromkeys(alpha for alpha, _ in plan.points))
    reducers = [Reducer(mlps, plan.count(alpha)) for alpha in alphas]
    dense, rises = list[Floats](), list[Floats]()
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        ids = torch.from_numpy(np.stack([text.ids[: plan.length] for text in batch]).astype(np.int64))
        truth = Truth(model, mlps, ids.to(model.device), plan.prompt_tokens, reducers)
        ranks = {alpha: places(made.prompt) for alpha, made in zip(alphas, truth.statistics, strict=True)}
        columns = []
        for alpha, keep in plan.points:
            columns.append(truth.losses(most_counted(ranks[alpha], keep)).nll_rise.mean(1, dtype=np.float64))
            tick(len(batch))
        dense.append(truth.nll.mean(1, dtype=np.float64))
        rises.append(np.stack(columns, 1))
        _check(dense[-1][:, None] + rises[-1], batch)
    return np.concatenate(dense), np.concatenate(rises)


def most_counted(ranks: NDArray[np.int32], keep: float) -> NDArray[np.bool_]:
    """The first neurons of each text, the same number in every layer: (B, L, F) -> bool (B, L, F)."""
    return np.asarray(ranks < uniform_budgets(keep, *ranks.shape[1:])[:, None])


def _check(losses: Floats, batch: Sequence[Text]) -> None:
    """Refuse losses (B, Q) that are not finite, and name the text."""
    for text, row in zip(batch, losses, strict=True):
        if not np.isfinite(row).all():
            raise CoreInferError(
                f"the loss on {text.name!r} is not a number: try --dtype float32, or check the model's weights"
            )
