"""The fallback, proven on the artifact that ships: auto is at least as near to dense as the better of similarity and
stability, on prompts of the corpus's kinds and on prompts from elsewhere (other languages, code, logs, chats, noise).
"""

import json

import numpy as np
import pytest

from coreinfer import Engine
from coreinfer.evaluate.plan import Plan, Text, name_texts
from coreinfer.evaluate.policies import Rungs
from coreinfer.evaluate.scoring import Results, measure
from coreinfer.paths import DEMO_OUTSIDE, DEMO_PASSAGES

POLICIES = ("similarity", "stability", "auto")
PLAN = Plan((0.4, 0.2), (64,), 96, POLICIES)
WITHIN = 1.02
KL = 1  # among the numbers of ``Results``


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load()


def noise(engine: Engine, count: int) -> list[Text]:
    """Tokens drawn by lot."""
    rng = np.random.default_rng(0)
    rows = rng.integers(2, len(engine.tokenizer), (count, PLAN.length)).astype(np.int32)
    rows[:, 0] = engine.tokenizer.bos_token_id
    return [Text(f"noise {i}", row) for i, row in enumerate(rows)]


def divergences(engine: Engine, texts: list[Text]) -> tuple[dict[tuple[float, str], float], Results]:
    found = measure(engine, texts, PLAN, Rungs(engine, POLICIES))
    return {rung: float(found.numbers[0, i, :, KL].mean()) for i, rung in enumerate(found.rungs)}, found


@pytest.mark.parametrize("side", ["inside", "outside"])
def test_auto_is_as_good_as_the_better_of_both(engine: Engine, side: str) -> None:
    lines = (DEMO_PASSAGES if side == "inside" else DEMO_OUTSIDE).read_text("utf-8").splitlines()
    texts = name_texts(engine.tokenizer, [json.loads(line)["text"] for line in lines], PLAN)
    texts = texts[:: len(texts) // 16]
    if side == "outside":
        texts += noise(engine, 4)
    kl, found = divergences(engine, texts)
    for keep in PLAN.keeps:
        better = min(kl[keep, "similarity"], kl[keep, "stability"])
        assert kl[keep, "auto"] <= WITHIN * better, (keep, kl)
    weak = (found.similarities[0] < engine.artifact.policy.threshold).tolist()
    assert [source == "stability" for source in found.sources[0]] == weak
