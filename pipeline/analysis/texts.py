"""The texts that an analysis looks at: long enough, evenly over the dataset, in a random order."""

from dataclasses import replace
from typing import Any

import numpy as np

from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from coreinfer.settings import at_least
from pipeline.analysis.plan import FEWEST, Plan
from pipeline.sources import SourceSettings
from pipeline.texts import Found, long_texts


def read_texts(
    source: SourceSettings, plan: Plan, tokenizer: Any, most: int, limit: int, tick: Tick = lambda n: None
) -> Found:
    """``limit`` of the texts of at least ``plan.length`` tokens, each with its first ``most``; shuffled by the seed.

    Of ``source``, limits and sizes are unused.

    Raises:
        CoreInferError: an unusable dataset, or fewer than ``FEWEST`` texts that are long enough.
    """
    at_least("--limit", limit, FEWEST)
    found = long_texts(source, tokenizer, plan.length, most, limit, tick)
    _check(len(found.texts), found.seen, plan, source.dataset)
    order = np.random.default_rng(plan.seed).permutation(len(found.texts))
    return replace(found, texts=[found.texts[i] for i in order])


def _check(found: int, seen: int, plan: Plan, dataset: str) -> None:
    if found < FEWEST:
        raise CoreInferError(
            f"{found} of {seen} texts of {dataset!r} have the {plan.length} tokens that prompt and continuation need, "
            f"at least {FEWEST} must: give more or longer texts, or lower --prompt-tokens and --continuation-tokens"
        )
