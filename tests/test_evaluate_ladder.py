"""What the measured rows say of each other: an order, intervals, differences, windows, batches."""

import numpy as np
import pytest
from evaluating import KEEP, PLAN, PROMPT, REST, Rows, measured
from evaluating import results as results
from evaluating import rows as rows
from evaluating import texts as texts

from coreinfer import Engine
from coreinfer.evaluate import LADDER, Plan, Results, Rungs, Text, measure, rows_of
from coreinfer.evaluate.scoring import batch_size


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


def test_every_text_is_ticked_at_every_rung(engine: Engine) -> None:
    assert sum(measured(engine)[1]) == 2 * 2 * len(LADDER) * 4


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
