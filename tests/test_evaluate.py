"""The ladder on the demo language model and a small real artifact, in float32."""

import numpy as np
import pytest
import torch
from conftest import demo_texts
from torch import Tensor
from torch.nn.functional import cross_entropy

from coreinfer import CoreInferError, Engine
from coreinfer.artifact import GLOBAL
from coreinfer.capture import Capture, valid_tokens
from coreinfer.evaluate import LADDER, Rung, _losses, _rows, _Scores, as_rows, evaluate
from coreinfer.neurons import NeuronSet, top
from coreinfer.slimming import slim

PROMPT, REST, KEEP = 16, 20, 0.3
Rungs = dict[tuple[str, float], Rung]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """One of each of four topics."""
    return demo_texts(40, 300)[::10]


@pytest.fixture(scope="module")
def ids(engine: Engine, texts: list[str]) -> Tensor:
    return _rows(engine, texts, PROMPT + REST)


@pytest.fixture(scope="module")
def ticks() -> list[int]:
    return []


@pytest.fixture(scope="module")
def rungs(engine: Engine, texts: list[str], ticks: list[int]) -> Rungs:
    made = evaluate(engine, texts, [1.0, KEEP], PROMPT, REST, tick=ticks.append)
    assert made[0].policy == "dense"
    assert [rung.policy for rung in made[1:]] == [*LADDER, *LADDER]
    return {(rung.policy, rung.keep): rung for rung in made}


def sliced_loss(engine: Engine, row: Tensor, neurons: NeuronSet) -> float:
    """NLL of a continuation: prompt first, then every further token in a call of its own, on gathered weights."""
    with torch.inference_mode(), slim(engine.model, neurons, prompt_tokens=PROMPT):
        out = engine.model(input_ids=row[None, :PROMPT], use_cache=True)
        logits = [out.logits[0, -1]]
        for at in range(PROMPT, PROMPT + REST - 1):
            out = engine.model(input_ids=row[None, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1])
    return float(cross_entropy(torch.stack(logits), row[PROMPT:]))


def a_set(engine: Engine, seed: int) -> NeuronSet:
    manifest = engine.artifact.manifest
    scores = np.random.default_rng(seed).random((manifest.layers, manifest.width))
    return top(scores, np.full(manifest.layers, manifest.width // 3))


def test_masked_scoring_equals_decoding_on_the_sliced_model(engine: Engine, ids: Tensor) -> None:
    sets = [a_set(engine, seed) for seed in range(len(ids))]  # each text has its own
    masked = _losses(engine, ids, PROMPT, sets)
    assert masked.shape == (4,)
    for row, neurons, loss in zip(ids, sets, masked, strict=True):
        assert loss == pytest.approx(sliced_loss(engine, row, neurons), abs=1e-5)
        with torch.inference_mode(), slim(engine.model, neurons, prompt_tokens=PROMPT):
            logits = engine.model(input_ids=row[None], use_cache=False).logits[0, PROMPT - 1 : -1]
        assert loss == pytest.approx(float(cross_entropy(logits, row[PROMPT:])), abs=1e-5)
    assert not any(module._forward_pre_hooks for module in engine.model.modules())


def test_dense_is_the_plain_model(engine: Engine, ids: Tensor, rungs: Rungs) -> None:
    with torch.inference_mode():
        logits = engine.model(input_ids=ids).logits[:, PROMPT - 1 : -1]
    slow = float(cross_entropy(logits.flatten(0, 1), ids[:, PROMPT:].flatten()))
    dense = rungs["dense", 1.0]
    assert dense.nll == pytest.approx(slow, abs=2e-5)
    assert (dense.nll_rise, dense.ci_low, dense.ci_high, dense.recall) == (0, 0, 0, 1)
    assert (dense.prompt_tokens, dense.continuation_tokens, dense.texts) == (PROMPT, REST, 4)


def test_keeping_everything_costs_nothing(rungs: Rungs) -> None:
    for policy in LADDER:
        rung = rungs[policy, 1.0]
        assert rung.nll_rise == pytest.approx(0, abs=1e-5)
        assert rung.recall == 1


def test_a_policy_is_its_set_sliced(engine: Engine, ids: Tensor, rungs: Rungs) -> None:
    budgets = engine.artifact.budgets(KEEP)
    one = top(engine.artifact.prior(GLOBAL), budgets)
    slow = np.mean([sliced_loss(engine, row, one) for row in ids])
    assert rungs["global", KEEP].nll == pytest.approx(slow, abs=2e-5)
    prompts = engine.tokenizer.batch_decode(ids[:, :PROMPT], skip_special_tokens=True)
    losses = []
    for row, match in zip(ids, engine.match(prompts), strict=True):
        neurons = top(engine.artifact.prior_of(match.clusters, match.similarities), budgets)
        losses.append(sliced_loss(engine, row, neurons))
    assert rungs["similarity", KEEP].nll == pytest.approx(np.mean(losses), abs=2e-5)


def test_random_is_worst_and_the_oracle_knows_its_set(rungs: Rungs) -> None:
    at = {policy: rungs[policy, KEEP] for policy in LADDER}
    assert at["oracle"].recall == 1
    assert at["random"].recall == pytest.approx(KEEP, abs=0.05)
    for policy in ("global", "stability", "similarity", "hybrid", "auto"):
        assert KEEP < at[policy].recall < 1
        assert at["random"].nll > at[policy].nll + 0.5


def test_intervals_hold_their_means(rungs: Rungs) -> None:
    for rung in rungs.values():
        assert rung.ci_low <= rung.nll_rise <= rung.ci_high
        assert rung.nll_rise == pytest.approx(rung.nll - rungs["dense", 1.0].nll, abs=2e-5)
    assert rungs["random", KEEP].ci_low < rungs["random", KEEP].ci_high


def test_every_text_is_ticked_at_every_rung(rungs: Rungs, ticks: list[int]) -> None:
    assert sum(ticks) == 2 * len(LADDER) * 4


def test_it_repeats(engine: Engine, texts: list[str], rungs: Rungs) -> None:
    again = evaluate(engine, texts, [KEEP], PROMPT, REST, ("random", "stability"))
    assert again == [rungs["dense", 1.0], rungs["random", KEEP], rungs["stability", KEEP]]


def test_the_prompt_knows_nothing_of_its_continuation(engine: Engine, ids: Tensor) -> None:
    changed = ids.clone()
    changed[:, PROMPT:] = ids[:, PROMPT:].flip(0)
    a, b = (_Scores(engine, rows, PROMPT) for rows in (ids, changed))
    for policy in ("stability", "similarity", "hybrid", "auto"):
        for x, y in zip(a.scores(policy), b.scores(policy), strict=True):
            assert x == pytest.approx(y, rel=1e-4, abs=1e-8)
    assert any(np.abs(x - y).max() > 1e-4 for x, y in zip(a.scores("oracle"), b.scores("oracle"), strict=True))


def test_stability_is_what_a_prefill_of_the_prompt_sees(engine: Engine, ids: Tensor) -> None:
    plan = _Scores(engine, ids, PROMPT)
    valid = valid_tokens(ids[:, :PROMPT], None, engine._bos)
    with torch.inference_mode(), Capture(engine.model, engine.artifact.manifest.statistic) as capture:
        capture.expect(valid)
        engine.model(input_ids=ids[:, :PROMPT])
        alone = capture.shares()
    assert plan.counts == valid.sum(1).tolist() == [PROMPT - 1] * 4  # beginning-of-text says nothing
    assert np.stack(list(plan.scores("stability"))) == pytest.approx(alone, rel=1e-3, abs=1e-7)


def test_batches_do_not_matter(engine: Engine, texts: list[str], rungs: Rungs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.evaluate.BATCH", 3)
    made = evaluate(engine, texts, [KEEP], PROMPT, REST, ("hybrid",))
    for rung in made:
        whole = rungs[rung.policy, rung.keep]
        assert (rung.nll, rung.recall) == pytest.approx((whole.nll, whole.recall), abs=1e-4)
        assert rung.texts == 4


def test_short_texts_are_left_out(engine: Engine, texts: list[str], rungs: Rungs) -> None:
    (dense,) = evaluate(engine, ["Too short.", *texts, ""], [], PROMPT, REST)
    assert dense == rungs["dense", 1.0]


@pytest.mark.parametrize("given", [[], [""], ["Too short.", "This one too."]])
def test_nothing_long_enough_is_refused(engine: Engine, given: list[str]) -> None:
    with pytest.raises(CoreInferError, match=f"none of {len(given)} texts has the {PROMPT + REST} tokens"):
        evaluate(engine, given, [KEEP], PROMPT, REST)


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.5])
def test_a_wrong_keep_is_refused(engine: Engine, texts: list[str], keep: float) -> None:
    with pytest.raises(CoreInferError, match="keep is"):
        evaluate(engine, texts[:1], [keep], PROMPT, REST)


def test_rows_are_plain(rungs: Rungs) -> None:
    (row,) = as_rows([rungs["global", KEEP]])
    assert row["policy"] == "global"
    assert row["nll_rise"] == rungs["global", KEEP].nll_rise
    assert {type(value) for value in row.values()} == {str, float, int}
