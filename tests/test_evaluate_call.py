"""The ladder called from Python, and what it refuses."""

from typing import Any

import pytest
from conftest import demo_texts
from evaluating import KEEP, PROMPT, REST, Rows
from evaluating import rows as rows
from evaluating import texts as texts

from coreinfer import CoreInferError, Engine
from coreinfer.evaluate import Plan, Rungs, Text, evaluate, measure


def test_a_call_from_python(engine: Engine, rows: Rows) -> None:
    given = ["Too short.", *demo_texts(40, 300)[::10], ""]
    dense, one, two = evaluate(engine, given, [KEEP], PROMPT, REST, ("global", "auto"))
    assert dense.nll == pytest.approx(rows["dense", 1.0, PROMPT].nll, abs=1e-5)
    assert [one.policy, two.policy] == ["global", "auto"]
    assert one.nll_rise == pytest.approx(rows["global", KEEP, PROMPT].nll_rise, abs=1e-5)
    assert one.diff_auto == pytest.approx(rows["global", KEEP, PROMPT].diff_auto, abs=1e-5)


def test_a_loss_that_is_no_number_names_the_text(engine: Engine, texts: list[Text]) -> None:
    plan = Plan((KEEP,), (PROMPT,), REST, ("global",))
    weight = engine.model.get_output_embeddings().weight
    token = int(texts[2].ids[PROMPT + 3])
    others = {int(i) for j in (0, 1, 3) for i in texts[j].ids[PROMPT : PROMPT + REST]}
    assert token not in others
    before = weight.data[token].clone()
    try:
        weight.data[token] = -1e38
        with pytest.raises(CoreInferError, match=r"'text \d' is (inf|nan) at continuation token \d+: try --dtype"):
            measure(engine, texts, plan, Rungs(engine, plan.policies))
    finally:
        weight.data[token] = before


@pytest.mark.parametrize("given", [[], [""], ["Too short.", "This one too."]])
def test_nothing_long_enough_is_refused(engine: Engine, given: list[str]) -> None:
    with pytest.raises(CoreInferError, match=f"0 of {len(given)} texts of the texts given have the {PROMPT + REST} to"):
        evaluate(engine, given, [KEEP], PROMPT, REST)


def test_one_text_is_refused(engine: Engine) -> None:
    with pytest.raises(CoreInferError, match=r"1 of 2 texts .* at least 2 must"):
        evaluate(engine, [*demo_texts(1, 300), "short"], [KEEP], PROMPT, REST)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"keeps": (0.0,)}, "keep is 0"), ({"keeps": (1.5,)}, "keep is 1.5"), ({"keeps": ()}, "measures nothing"),
        ({"prompt_tokens": (0,)}, "--prompt-tokens is 0"), ({"continuation_tokens": 1}, "--continuation-tokens is 1"),
        ({"policies": ("best",)}, "--policy is 'best'"), ({"seed": -1}, "seed is -1"),
    ],
)  # fmt: skip
def test_a_wrong_plan_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        Plan(**{"keeps": (0.4,), **wrong})
