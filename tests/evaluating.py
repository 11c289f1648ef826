"""The ladder, measured once on the demo language model and a small real artifact, in float32."""

from functools import cache

import numpy as np
import pytest
import torch
from conftest import demo_texts
from torch import Tensor

from coreinfer import Engine
from coreinfer.evaluate import LADDER, Plan, Results, Row, Rungs, Text, measure, rows_of
from coreinfer.evaluate.plan import name_texts

PROMPT, REST, KEEP = 16, 20, 0.3
PLAN = Plan((KEEP, 1.0), (PROMPT, 8), REST)
Rows = dict[tuple[str, float, int], Row]


def some_texts(engine: Engine) -> list[Text]:
    """One of each of four topics."""
    return name_texts(engine.tokenizer, demo_texts(40, 300)[::10], PLAN)


@pytest.fixture(scope="module")
def texts(engine: Engine) -> list[Text]:
    return some_texts(engine)


@pytest.fixture(scope="module")
def ids(engine: Engine) -> Tensor:
    return torch.from_numpy(np.stack([text.ids for text in some_texts(engine)]).astype(np.int64))


@cache  # several files import the fixtures: measured once for all of them
def measured(engine: Engine) -> tuple[Results, list[int]]:
    """What the four texts cost under the whole ladder, and the ticks of its progress."""
    ticks = list[int]()
    return measure(engine, some_texts(engine), PLAN, Rungs(engine, LADDER), tick=ticks.append), ticks


@pytest.fixture(scope="module")
def results(engine: Engine) -> Results:
    return measured(engine)[0]


@pytest.fixture(scope="module")
def rows(engine: Engine) -> Rows:
    made = rows_of(measured(engine)[0], Rungs(engine, LADDER))
    return {(row.policy, row.keep, row.prompt_tokens): row for row in made}
