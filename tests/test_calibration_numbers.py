"""The policies' numbers: the threshold against every cut there is, and choices that noise must not make."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.settings import PolicySettings
from pipeline.calibration.numbers import CLOSE, NO_DOUBT, SAME, best, doubts, ramp, skips, threshold

rows = st.lists(
    st.tuples(st.floats(-0.2, 1), st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=30, unique_by=lambda r: r[0]
)


def cost(near: Any, match: Any, fallback: Any, at: float) -> float:
    return float(np.where(near >= at, match, fallback).sum())


@given(rows)
def test_no_other_threshold_costs_less(some: list[tuple[float, float, float]]) -> None:
    near, match, fallback = (np.round(np.array(column), 3) for column in zip(*some, strict=True))
    chosen = threshold(near, match, fallback)
    others = [cost(near, match, fallback, at) for at in [*near, 2.0]]
    tied = np.unique(near).size < near.size  # rounding made two observations one: no threshold parts them
    assert tied or cost(near, match, fallback, chosen) <= min(others) + 1e-9


def test_where_the_match_is_always_better_what_is_weaker_than_all_seen_falls_back() -> None:
    near = np.array([0.5, 0.2, 0.9])
    assert threshold(near, np.zeros(3), np.ones(3)) == 0.2
    assert threshold(near, np.ones(3), np.zeros(3)) > 0.9


@given(st.lists(st.tuples(st.floats(-0.2, 1), *[st.floats(0, 1)] * 3), min_size=2, max_size=25))
def test_no_other_ramp_costs_much_less(some: list[tuple[float, ...]]) -> None:
    """Against every ramp between two similarities that were seen, each observation's cost read off by hand."""
    near, *columns = (np.round(np.array(column), 4) for column in zip(*some, strict=True))
    costs, worth = np.stack(columns, 1), [0.0, 0.25, 1.0]

    def total(low: float, high: float) -> float:
        shares = [PolicySettings(threshold=low, strong=high, n0=1.0).n0_at(s) for s in near]
        return float(np.mean([np.interp(x, worth, row) for x, row in zip(shares, costs, strict=True)]))

    low, high = ramp(near, costs, worth)
    assert low <= high
    edges = np.unique(np.quantile(near, np.linspace(0, 1, 25)).round(4))
    least = min(total(a, b) for i, a in enumerate(edges) for b in edges[i:])
    assert total(low, high) <= least * (1 + CLOSE) + 1e-9


def test_a_ramp_is_found_where_there_is_one() -> None:
    near = np.linspace(0, 1, 101)
    wanted = np.clip((near - 0.2) / 0.4, 0, 1)
    worth = [x / 10 for x in range(11)]
    low, high = ramp(near, (np.array(worth) - wanted[:, None]) ** 2 + 0.001, worth)
    assert [low, high] == pytest.approx([0.2, 0.6], abs=0.08)
    everything = np.ones((101, 2)) * [0.0, 1.0]
    assert ramp(near, everything, (0.0, 1.0))[0] > 1


def test_a_choice_needs_more_than_noise() -> None:
    assert best(np.array([[0.1, 0.1 - SAME / 2]])) == 0
    assert best(np.array([[0.1, 0.1 - SAME * 2]])) == 1
    assert best(np.array([[0.3, 0.1, 0.2]]), first=2) == 1


def test_doubt_grows_as_prompts_shorten() -> None:
    long = np.linspace(0.02, 0.06, 41)
    doubt, fall = doubts(long.tolist(), (3 * long).tolist(), 4.0)
    assert fall == pytest.approx(np.log(3) / np.log(4), abs=1e-4)
    assert doubt == pytest.approx(np.quantile(long, 0.95), abs=2e-3)
    assert doubts([0.05], [0.2], 4.0) == (0.05, 1.0)  # one text says what it can
    assert doubts(long.tolist(), (long / 2).tolist(), 4.0)[1] == 0.0


def test_where_nothing_disagrees_doubt_is_still_a_number_to_divide_by() -> None:
    assert doubts([0.0, 0.0], [0.0, 0.0], 4.0) == (NO_DOUBT, 0.0)


def test_the_nearest_clusters_left_out_leave_a_mixture() -> None:
    assert skips(128, 4) == [0, 8, 26, 64, 124]
    assert skips(3, 4) == [0]
    assert max(skips(10, 4)) == 6
