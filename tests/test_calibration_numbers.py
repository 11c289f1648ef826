"""The policies' numbers: the threshold against every cut there is, and choices that noise must not make."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.calibration.numbers import SAME, best, skips, threshold

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


def test_a_choice_needs_more_than_noise() -> None:
    assert best(np.array([[0.1, 0.1 - SAME / 2]])) == 0
    assert best(np.array([[0.1, 0.1 - SAME * 2]])) == 1
    assert best(np.array([[0.3, 0.1, 0.2]]), first=2) == 1


def test_the_nearest_clusters_left_out_leave_a_mixture() -> None:
    assert skips(128, 4) == [0, 8, 26, 64, 124]
    assert skips(3, 4) == [0]
    assert max(skips(10, 4)) == 6
