"""Layer budgets: the split against all splits there are, and what must hold for any costs."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.calibration.budgets import KEEPS, convex, smooth, spread, table

Array = np.ndarray[Any, np.dtype[np.float64]]
WIDTH = 100
costs = st.lists(st.floats(-0.1, 2, allow_nan=False), min_size=len(KEEPS), max_size=len(KEEPS)).map(np.array)


@given(costs)
def test_a_hull_is_convex_falls_and_lies_below_the_costs(measured: Array) -> None:
    x, y = convex(KEEPS, measured)
    slopes = np.diff(y) / np.diff(x)
    assert x[0] == KEEPS[0]
    assert (x[-1], y[-1]) == (1.0, 0.0)
    assert (np.diff(slopes) >= -1e-9).all()
    assert (slopes <= 1e-12).all()
    assert (np.interp(KEEPS, x, y) <= np.maximum(measured, 0) + 1e-9).all()


def test_a_hull_touches_costs_that_are_convex_already() -> None:
    measured = 0.3 * (1 - np.array(KEEPS)) ** 2
    x, y = convex(KEEPS, measured)
    assert x.tolist() == [*KEEPS, 1.0]
    assert y == pytest.approx([*measured, 0.0])


@given(costs)
def test_a_smooth_hull_is_a_hull_near_the_measured_points(measured: Array) -> None:
    x, y = smooth(hull := convex(KEEPS, measured))
    assert (np.diff(np.diff(y) / np.diff(x)) >= -1e-9).all()
    assert (x[0], x[-1], y[-1]) == (KEEPS[0], 1.0, 0.0)
    # A monotone cubic leaves its chord by 2 / (3 sqrt 3) of its rise at most: 1 - (1 - t)^3 does, at 1 - 1 / sqrt 3.
    assert np.abs(np.interp(x, *hull) - y).max() <= 0.385 * hull[1][0] + 1e-9


def test_equal_smooth_curves_share_alike() -> None:
    curve = smooth(convex(KEEPS, (1 - np.array(KEEPS)) ** 2))
    assert np.ptp(spread([curve] * 3, 0.4, WIDTH)) <= 2


@given(st.lists(costs, min_size=1, max_size=5), st.floats(0.005, 1))
def test_the_sum_is_what_was_asked_for(measured: list[Array], keep: float) -> None:
    budgets = spread([convex(KEEPS, c) for c in measured], keep, WIDTH)
    assert budgets.sum() == round(keep * WIDTH * len(measured))
    assert ((budgets >= 0) & (budgets <= WIDTH)).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(costs, min_size=2, max_size=3), st.floats(0.05, 1))
def test_no_split_costs_less(measured: list[Array], keep: float) -> None:
    hulls, total = [convex(KEEPS, c) for c in measured], round(keep * WIDTH * len(measured))
    price = np.stack([np.interp(np.arange(WIDTH + 1) / WIDTH, x, y) for x, y in hulls])
    least = round(KEEPS[0] * WIDTH)
    free = product(range(least, WIDTH + 1), repeat=len(hulls) - 1)
    splits = (np.array([*some, total - sum(some)]) for some in free if least <= total - sum(some) <= WIDTH)
    best = min(sum(price[layer, n] for layer, n in enumerate(split)) for split in splits)
    mine = spread(hulls, keep, WIDTH)
    # A budget is a whole number and a hull's corner need not be: one neuron's price apart at most.
    slack = max(abs(np.diff(p)).max() for p in price)
    assert sum(price[layer, n] for layer, n in enumerate(mine)) <= best + slack + 1e-9


@given(st.lists(costs, min_size=2, max_size=4))
def test_budgets_never_fall_as_keep_rises(measured: list[Array]) -> None:
    grid = [0.05 * i for i in range(1, 21)]
    rows = table([convex(KEEPS, c) for c in measured], grid, WIDTH)
    assert (np.diff(rows, axis=0) >= -1).all()  # but for a remainder that goes to another layer
    assert (rows[-1] == WIDTH).all()


def test_a_layer_that_costs_more_keeps_more() -> None:
    dear, cheap = (convex(KEEPS, weight * (1 - np.array(KEEPS)) ** 2) for weight in (1.0, 0.1))
    budgets = spread([dear, cheap], 0.5, WIDTH)
    assert budgets[0] > 70
    assert budgets[1] < 30
