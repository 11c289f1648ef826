"""The ladder on the demo language model and a small real artifact, in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from conftest import demo_texts
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from coreinfer import CoreInferError, Engine
from coreinfer.artifact import GLOBAL
from coreinfer.capture import Capture, valid_tokens
from coreinfer.evaluate import LADDER, Plan, Results, Row, Rungs, Text, evaluate, masked, measure, rows_of
from coreinfer.evaluate.plan import name_texts
from coreinfer.evaluate.policies import Known
from coreinfer.evaluate.scoring import batch_size
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, top
from coreinfer.slimming import slim

PROMPT, REST, KEEP = 16, 20, 0.3
PLAN = Plan((KEEP, 1.0), (PROMPT, 8), REST)
Rows = dict[tuple[str, float, int], Row]


@pytest.fixture(scope="module")
def texts(engine: Engine) -> list[Text]:
    """One of each of four topics."""
    return name_texts(engine.tokenizer, demo_texts(40, 300)[::10], PLAN)


@pytest.fixture(scope="module")
def ids(texts: list[Text]) -> Tensor:
    return torch.from_numpy(np.stack([text.ids for text in texts]).astype(np.int64))


@pytest.fixture(scope="module")
def ticks() -> list[int]:
    return []


@pytest.fixture(scope="module")
def results(engine: Engine, texts: list[Text], ticks: list[int]) -> Results:
    return measure(engine, texts, PLAN, Rungs(engine, LADDER), tick=ticks.append)


@pytest.fixture(scope="module")
def rows(engine: Engine, results: Results) -> Rows:
    return {(row.policy, row.keep, row.prompt_tokens): row for row in rows_of(results, Rungs(engine, LADDER))}


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
            if engine.encode(prompt)[0].tolist() != row[:PROMPT].tolist():
                pytest.skip("the prompt's text is tokenized another way")
            neurons = engine.predict(prompt, policy, KEEP).neurons
            assert neurons is not None
            losses.append(sliced_loss(engine, row, neurons))
        assert rows[policy, KEEP, PROMPT].nll == pytest.approx(np.mean(losses), abs=1e-4)


def test_the_ladder_has_an_order(rows: Rows) -> None:
    at = {policy: rows[policy, KEEP, PROMPT] for policy in LADDER}
    assert at["oracle"].recall == 1
    assert at["random"].recall == pytest.approx(KEEP, abs=0.05)
    assert max(row.kl for row in at.values()) == at["random"].kl
    for policy in ("global", "paper-stability", "griffin", "stability", "glass", "similarity", "hybrid", "auto"):
        assert KEEP < at[policy].recall < 1
        assert at["random"].nll > at[policy].nll + 0.5
        assert at["random"].agreement < at[policy].agreement


def test_the_random_floor_and_the_wrong_cluster_are_seeded(engine: Engine, texts: list[Text], rows: Rows) -> None:
    def nll(seed: int) -> list[float]:
        plan = Plan((KEEP,), (PROMPT,), REST, ("random", "wrong-cluster"), seed)
        rungs = Rungs(engine, plan.policies, seed=seed)
        return [row.nll for row in rows_of(measure(engine, texts, plan, rungs), rungs)[1:]]

    assert nll(0) == pytest.approx([rows[p, KEEP, PROMPT].nll for p in ("random", "wrong-cluster")], abs=1e-5)
    assert nll(0) == nll(0) != nll(1)


def test_intervals_hold_their_means(rows: Rows) -> None:
    for row in rows.values():
        assert row.ci_low is not None
        assert row.ci_high is not None
        assert row.ci_low <= row.nll_rise <= row.ci_high
        assert row.nll_rise == pytest.approx(row.nll - rows["dense", 1.0, row.prompt_tokens].nll, abs=2e-6)


def test_differences_are_to_auto_at_the_same_keep(rows: Rows) -> None:
    for (policy, keep, tokens), row in rows.items():
        if policy == "dense":
            assert row.diff_auto is None
            continue
        auto = rows["auto", keep, tokens]
        assert row.diff_auto == pytest.approx(row.nll_rise - auto.nll_rise, abs=2e-6)
        assert row.diff_low is not None
        assert row.diff_high is not None
        assert row.diff_low <= (row.diff_auto or 0) <= row.diff_high
    auto = rows["auto", KEEP, PROMPT]
    assert (auto.diff_auto, auto.diff_low, auto.diff_high) == (0, 0, 0)


def test_auto_says_what_it_used(results: Results, rows: Rows) -> None:
    auto = rows["auto", KEEP, PROMPT]
    shares = [auto.share_similarity, auto.share_stability, auto.share_hybrid]
    assert sum(share or 0 for share in shares) == pytest.approx(1)
    at = {pair: r for r, pair in enumerate(results.rungs)}
    for i, source in enumerate(results.sources[0]):
        mine, its = (results.numbers[0, at[KEEP, policy], i] for policy in ("auto", str(source)))
        assert mine.tolist() == its.tolist()  # scored once
    assert rows["hybrid", KEEP, PROMPT].share_hybrid is None


def test_every_text_is_ticked_at_every_rung(results: Results, ticks: list[int]) -> None:
    assert sum(ticks) == 2 * 2 * len(LADDER) * 4


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


def scores(engine: Engine, ids: NDArray[np.int32], policy: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each text's neurons are ranked by."""
    seen, rungs, real = list[Any](), Rungs(engine, (policy,)), Rungs.scores

    def spy(self: Rungs, asked: str, known: Known, i: int) -> NDArray[np.float64]:
        made = real(self, asked, known, i)
        seen.extend([made] if asked == policy else [])
        return made

    with monkeypatch.context() as patch:
        patch.setattr(Rungs, "scores", spy)
        texts = [Text(f"text {i}", row) for i, row in enumerate(ids)]
        measure(engine, texts, Plan((KEEP,), (PROMPT,), REST, (policy,)), rungs)
    return seen[-len(ids) :]


def test_the_prompt_knows_nothing_of_its_continuation(
    engine: Engine, texts: list[Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.stack([text.ids for text in texts])
    changed = ids.copy()
    changed[:, PROMPT:] = ids[::-1, PROMPT:]
    for policy in LADDER:
        pairs = zip(*(scores(engine, rows, policy, monkeypatch) for rows in (ids, changed)), strict=True)
        same = all(np.allclose(x, y, rtol=1e-4, atol=1e-8) for x, y in pairs)
        assert same == (policy != "oracle"), policy


def test_stability_is_what_a_prefill_of_the_prompt_sees(
    engine: Engine, texts: list[Text], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = np.stack([text.ids for text in texts])
    prompts = torch.from_numpy(ids[:, :PROMPT].astype(np.int64))
    with torch.inference_mode(), Capture(engine.model, engine.artifact.manifest.statistic) as capture:
        capture.expect(valid_tokens(prompts, None, engine._bos))
        engine.model(input_ids=prompts)
        alone = capture.shares()
    assert np.stack(scores(engine, ids, "stability", monkeypatch)) == pytest.approx(alone, rel=1e-3, abs=1e-7)


def test_windows_and_batches_are_parts_of_the_whole(
    engine: Engine, texts: list[Text], results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = np.array([8, 8, 4]) / REST
    assert results.windows @ weights == pytest.approx(results.numbers[..., 0], abs=1e-6)
    monkeypatch.setattr("coreinfer.evaluate.scoring.LARGEST", 3)
    again = measure(engine, texts, PLAN, Rungs(engine, LADDER))
    assert again.numbers[..., :2] == pytest.approx(results.numbers[..., :2], abs=5e-3)  # a neuron on the edge may swap
    assert np.median(np.abs(again.numbers - results.numbers)) < 1e-6
    assert again.sources.tolist() == results.sources.tolist()


def test_batches_fit_their_room() -> None:
    assert batch_size(128, 262_144) == 2
    assert batch_size(512, 262_144) == 1
    assert batch_size(4096, 262_144) == 1
    assert batch_size(128, 8192) == 16


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


def test_a_call_from_python(engine: Engine, rows: Rows) -> None:
    given = ["Too short.", *demo_texts(40, 300)[::10], ""]
    dense, one, two = evaluate(engine, given, [KEEP], PROMPT, REST, ("global", "auto"))
    assert dense.nll == pytest.approx(rows["dense", 1.0, PROMPT].nll, abs=1e-5)
    assert [one.policy, two.policy] == ["global", "auto"]
    assert one.nll_rise == pytest.approx(rows["global", KEEP, PROMPT].nll_rise, abs=1e-5)
    assert one.diff_auto == pytest.approx(rows["global", KEEP, PROMPT].diff_auto, abs=1e-5)


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
