"""The ladder's losses against slow truths: plain forwards, and decoding token by token on gathered weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import KEEP, PROMPT, REST, Rows
from evaluating import ids as ids
from evaluating import results as results
from evaluating import rows as rows
from evaluating import texts as texts
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from coreinfer import Engine
from coreinfer.artifact import GLOBAL
from coreinfer.evaluate import LADDER, Plan, Results, Rungs, Text, masked, measure, rows_of
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, top
from coreinfer.slimming import slim


@torch.no_grad()
def sliced_loss(engine: Engine, row: Tensor, neurons: NeuronSet) -> float:
    """NLL of a continuation: prompt first, then every further token in a call of its own, on gathered weights."""
    with slim(engine.model, neurons, prompt_tokens=PROMPT):
        out = engine.model(input_ids=row[None, :PROMPT], use_cache=True)
        logits = [out.logits[0, -1]]
        for at in range(PROMPT, PROMPT + REST - 1):
            out = engine.model(input_ids=row[None, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1])
    return float(cross_entropy(torch.stack(logits), row[PROMPT : PROMPT + REST]))


def test_dense_is_the_plain_model(engine: Engine, ids: Tensor, rows: Rows) -> None:
    with torch.inference_mode():
        logits = engine.model(input_ids=ids[:, : PROMPT + REST]).logits[:, PROMPT - 1 : -1]
    slow = float(cross_entropy(logits.flatten(0, 1), ids[:, PROMPT : PROMPT + REST].flatten()))
    dense = rows["dense", 1.0, PROMPT]
    assert dense.nll == pytest.approx(slow, abs=2e-5)
    assert (dense.nll_rise, dense.ci_low, dense.ci_high, dense.kl, dense.agreement, dense.recall) == (0, 0, 0, 0, 1, 1)
    assert (dense.prompt_tokens, dense.continuation_tokens, dense.texts) == (PROMPT, REST, 4)


def test_keeping_everything_costs_nothing(rows: Rows) -> None:
    for policy in LADDER:
        row = rows[policy, 1.0, PROMPT]
        assert (row.nll_rise, row.kl, row.agreement, row.recall) == (0, 0, 1, 1)


def check_similarity_is_its_set_sliced(engine: Engine, ids: Tensor, texts: list[Text]) -> None:
    plan = Plan((KEEP,), (PROMPT,), REST, ("global", "similarity"))
    rungs = Rungs(engine, plan.policies)
    made = {row.policy: row for row in rows_of(measure(engine, texts, plan, rungs), rungs)}
    budgets = engine.artifact.budgets(KEEP)
    one = top(engine.artifact.prior(GLOBAL), budgets)
    assert made["global"].nll == pytest.approx(np.mean([sliced_loss(engine, row, one) for row in ids]), abs=2e-5)
    prompts = engine.tokenizer.batch_decode(ids[:, :PROMPT], skip_special_tokens=True)
    losses = []
    for row, match in zip(ids, engine.match(prompts), strict=True):
        neurons = top(engine.artifact.prior_of(match.clusters, match.similarities), budgets)
        losses.append(sliced_loss(engine, row, neurons))
    assert made["similarity"].nll == pytest.approx(np.mean(losses), abs=2e-5)


def test_a_policy_is_its_set_sliced(engine: Engine, ids: Tensor, texts: list[Text]) -> None:
    check_similarity_is_its_set_sliced(engine, ids, texts)


def test_an_unsliced_continuation_would_be_noticed(
    engine: Engine, ids: Tensor, texts: list[Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def nothing(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(masked, "_masked", nothing)
    with pytest.raises(AssertionError):
        check_similarity_is_its_set_sliced(engine, ids, texts)


def test_what_a_prediction_keeps_is_what_is_scored(engine: Engine, ids: Tensor, rows: Rows) -> None:
    """The engine's own prediction for the prompt's text, sliced, loses what the ladder says."""
    for policy in ("stability", "hybrid"):
        losses = []
        for row in ids:
            prompt = str(engine.tokenizer.decode(row[:PROMPT], skip_special_tokens=True))
            assert engine.encode(prompt)[0].tolist() == row[:PROMPT].tolist(), (
                "choose texts whose words stay their tokens"
            )
            neurons = engine.predict(prompt, policy, KEEP).neurons
            assert neurons is not None
            losses.append(sliced_loss(engine, row, neurons))
        assert rows[policy, KEEP, PROMPT].nll == pytest.approx(np.mean(losses), abs=1e-4)


def test_prompt_tokens_never_count(engine: Engine, ids: Tensor, results: Results) -> None:
    """The whole text masked after its prompt, in one plain forward: the prompt's tokens are not in the mean, and none
    of them loses anything."""
    whole, at = ids[:, : PROMPT + REST], results.rungs.index((KEEP, "global"))
    kept = torch.from_numpy(top(engine.artifact.prior(GLOBAL), engine.artifact.budgets(KEEP)).mask())

    def losses(first_masked: int) -> NDArray[np.float64]:
        def zero(layer: int) -> Any:
            def hook(_: Any, args: tuple[Any, ...]) -> tuple[Tensor]:
                a = args[0].clone()
                a[:, first_masked:, ~kept[layer]] = 0
                return (a,)

            return hook

        hooks = [mlp.down.register_forward_pre_hook(zero(i)) for i, mlp in enumerate(find_mlps(engine.model))]
        with torch.inference_mode():
            logits = engine.model(input_ids=whole, use_cache=False).logits[:, :-1]
        for one in hooks:
            one.remove()
        return (
            cross_entropy(logits.flatten(0, 1), whole[:, 1:].flatten(), reduction="none").view(4, -1).double().numpy()
        )

    dense, right, wrong = losses(PROMPT + REST), losses(PROMPT), losses(0)
    assert (right == dense)[:, : PROMPT - 1].all()
    assert results.nll[0] == pytest.approx(dense[:, PROMPT - 1 :].mean(1), abs=2e-5)
    assert results.nll[0] != pytest.approx(dense.mean(1), abs=1e-2)
    rise = results.numbers[0, at, :, 0]
    assert rise == pytest.approx((right - dense).sum(1) / REST, abs=2e-5)
    assert rise != pytest.approx((wrong - dense).sum(1) / REST, abs=1e-2)
