"""A whole analysis, in the order of the paper: observe, score, compare meanings, sum up."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.embedder import Embedder
from coreinfer.evaluate.plan import Text
from coreinfer.progress import Stage, unseen
from coreinfer.prompts import words_of_tokens
from pipeline.analysis.bits import Floats
from pipeline.analysis.findings import findings, pairs_of
from pipeline.analysis.observe import PAIRED, most_tokens, observe
from pipeline.analysis.plan import Plan
from pipeline.analysis.quality import cost
from pipeline.analysis.records import Findings, Pairs


def analyze(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    embedder: Embedder,
    texts: Sequence[Text],
    plan: Plan,
    stage: Stage = unseen,
) -> tuple[Findings, Pairs]:
    """All findings on ``texts`` of at least ``plan.length`` tokens each, and the pairs behind the correlations.

    Raises:
        CoreInferError: a loss that is not a number.
    """
    observed = observe(model, [text.ids for text in texts], plan, stage("observe", len(texts)))
    costs = cost(model, texts, plan, stage("score", len(texts) * len(plan.points)))
    paired = pairs_of(observed, _meanings(tokenizer, embedder, texts[:PAIRED], plan.length))
    return findings(plan, observed, costs, paired, most_tokens(model, plan)), paired


def _meanings(tokenizer: Any, embedder: Embedder, texts: Sequence[Text], length: int) -> Floats:
    """Unit embeddings (n, d) of what the core sets are of, the first ``length`` tokens."""
    words = words_of_tokens(tokenizer, [text.ids[:length].tolist() for text in texts])
    return np.asarray(embedder.embed(words), np.float64)
