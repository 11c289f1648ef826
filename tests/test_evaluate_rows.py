"""Rows of the ladder are means of what was measured: over all texts, over a domain, of differences to auto."""

import numpy as np
import pytest

from coreinfer import Engine
from coreinfer.evaluate import Plan, Results, Rungs, Text, rows_of


def some_results(domains: list[str | None], policies: tuple[str, ...] = ("global", "auto")) -> Results:
    rng, n = np.random.default_rng(0), len(domains)
    plan = Plan((0.4, 0.2), (8, 16), 8, policies)
    texts = [Text(f"t{i}", np.zeros(24, np.int32), domain) for i, domain in enumerate(domains)]
    pairs = [(keep, policy) for keep in plan.keeps for policy in policies]
    sources = np.array([["hybrid", "stability"][i % 2] for i in range(n)] * 2).reshape(2, n)
    return Results(
        plan, texts, pairs, rng.random((2, n)), rng.random((2, 4, n, 4)), rng.random((2, 4, n, 1)), sources,
        rng.random((2, n)),
    )  # fmt: skip


def test_domains_average_to_the_whole(engine: Engine) -> None:
    rows = rows_of(some_results(["a", "b", "a", "c", None, "a", "b"]), Rungs(engine, ("global", "auto")))
    assert len(rows) == 5 * 2 * 5  # whole and four domains; prompt lengths; dense and the rungs
    for whole in (row for row in rows if row.domain is None):
        key = (whole.policy, whole.keep, whole.prompt_tokens)
        parts = [r for r in rows if r.domain is not None and (r.policy, r.keep, r.prompt_tokens) == key]
        assert [(part.domain, part.texts) for part in parts] == [("(none)", 1), ("a", 3), ("b", 2), ("c", 1)]
        for name in ("nll", "nll_rise", "kl", "agreement", "recall", "diff_auto", "share_hybrid"):
            values = [getattr(part, name) for part in parts]
            if getattr(whole, name) is None:
                assert values == [None] * 4
                continue
            mean = sum(part.texts * value for part, value in zip(parts, values, strict=True)) / whole.texts
            assert getattr(whole, name) == pytest.approx(mean, abs=3e-6)
        assert [part.ci_low is None for part in parts] == [True, False, False, True]


def test_rows_are_means_of_their_own_numbers(engine: Engine) -> None:
    results = some_results(["a"] * 5)
    rows = rows_of(results, Rungs(engine, ("global", "auto")))
    assert [row.domain for row in rows] == [None] * 10  # one domain says nothing
    for row in rows:
        p = results.plan.prompt_tokens.index(row.prompt_tokens)
        if row.policy == "dense":
            assert row.nll == pytest.approx(results.nll[p].mean(), abs=1e-6)
            continue
        mine = results.numbers[p, results.rungs.index((row.keep, row.policy))]
        auto = results.numbers[p, results.rungs.index((row.keep, "auto"))]
        assert (row.nll_rise, row.kl, row.agreement, row.recall) == pytest.approx(mine.mean(0), abs=1e-6)
        assert row.diff_auto == pytest.approx((mine - auto)[:, 0].mean(), abs=1e-6)


def test_without_auto_there_is_no_difference(engine: Engine) -> None:
    rows = rows_of(some_results(["a"] * 3, ("global", "oracle")), Rungs(engine, ("global", "oracle")))
    assert {(row.diff_auto, row.diff_low, row.diff_high) for row in rows} == {(None, None, None)}
