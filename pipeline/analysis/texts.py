"""The texts that an analysis looks at: long enough, evenly over the dataset, in a random order."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np

from coreinfer.errors import CoreInferError
from coreinfer.evaluate.plan import Text
from coreinfer.settings import at_least
from pipeline.analysis.plan import FEWEST, Plan
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.texts import BATCH, WHOLE, Found, evenly


def read_texts(source: SourceSettings, plan: Plan, tokenizer: Any, most: int, limit: int) -> Found:
    """``limit`` of the texts of at least ``plan.length`` tokens, each with its first ``most``; shuffled by the seed.

    Of ``source``, limits and sizes are unused.

    Raises:
        CoreInferError: an unusable dataset, or fewer than ``FEWEST`` texts that are long enough.
    """
    at_least("--limit", limit, FEWEST)
    counts, short = Counts(), [0]
    whole = replace(source, limit=None, max_tokens=WHOLE, min_chars=0)
    passages = read_passages(whole, lambda batch: [1] * len(batch), counts)  # nothing is split: no need to count

    def long_enough() -> Iterator[Text]:
        while batch := list(islice(passages, BATCH)):
            rows = tokenizer([passage.text for passage in batch], verbose=False)["input_ids"]
            short[0] += sum(len(row) < plan.length for row in rows)
            for passage, row in zip(batch, rows, strict=True):
                if len(row) >= plan.length:
                    yield Text(passage.source, np.asarray(row[:most], np.int32))

    found = evenly(long_enough(), limit)
    _check(len(found), counts.passages, plan, source.dataset)
    order = np.random.default_rng(plan.seed).permutation(len(found))
    return Found([found[i] for i in order], counts.passages, short[0])


def _check(found: int, seen: int, plan: Plan, dataset: str) -> None:
    if found < FEWEST:
        raise CoreInferError(
            f"{found} of {seen} texts of {dataset!r} have the {plan.length} tokens that prompt and continuation need, "
            f"at least {FEWEST} must: give more or longer texts, or lower --prompt-tokens and --continuation-tokens"
        )
