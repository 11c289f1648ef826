"""Budgets weighed where all layers are cut: on a made-up model whose layers' costs do not add up as they say alone."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from coreinfer.neurons import uniform_budgets
from pipeline.calibration import budgets
from pipeline.calibration.layers import Layers, layer_budgets, reweighed, weigh

LAYERS, WIDTH = 3, 400
POSITIVE = arrays(np.float64, LAYERS, elements=st.floats(0.01, 100))


@dataclass(frozen=True)
class MadeUp:
    """What of an artifact its budgets are."""

    manifest: Any
    budget_grid: Any = None
    budget_table: Any = None

    def budgets(self, keep: float) -> Any:
        """Uniform, unless others were put in."""
        if self.budget_grid is None:
            return uniform_budgets(keep, LAYERS, WIDTH)
        return self.budget_table[np.isclose(self.budget_grid, keep)][0].astype(int)


class Model:
    """Costs of cutting: each layer's own, and ``times`` as much of it where every layer is cut."""

    def __init__(self, times: list[float]) -> None:
        self.times = np.array(times)
        self.artifact: Any = MadeUp(SimpleNamespace(layers=LAYERS, width=WIDTH, default_keep=0.4))

    def cost(self, counts: Any) -> float:
        """One layer's cut alone costs (1 - keep)^2, whichever it is."""
        own = (1 - counts / WIDTH) ** 2
        return float((own * (self.times if (counts < WIDTH).all() else 1.0)).sum())

    def costs(self, name: str, plans: Any) -> Any:
        """As the calibration measures them: plans of one text, (1, plans)."""
        case: Any = SimpleNamespace(ranks=lambda *_: np.tile(np.arange(WIDTH), (1, LAYERS, 1)))
        return np.array([[self.cost(plan(case)[0].sum(-1)) for plan in plans]])

    @property
    def plain(self) -> Layers:
        own = (1 - np.array(budgets.KEEPS)) ** 2
        return Layers([budgets.smooth(budgets.convex(budgets.KEEPS, own))] * LAYERS, np.ones(LAYERS), WIDTH)


def test_weights_find_what_layers_cost_together() -> None:
    model = Model([4.0, 1.0, 0.5])
    found = weigh(model.costs, model.artifact, model.plain, 0.4)
    before, after = (model.cost(layers.counts(0.4)) for layers in (model.plain, found))
    split = np.array([[a, b, 480 - a - b] for a in range(401) for b in range(max(0, 80 - a), min(400, 480 - a) + 1)])
    least = min(model.cost(row) for row in split[(split < WIDTH).all(1)])
    assert found.weights[0] > 2 * found.weights[1] > 2 * found.weights[2]
    assert after - least < 0.25 * (before - least)


def test_weights_stay_where_costs_add_up() -> None:
    model = Model([1.0, 1.0, 1.0])
    found = weigh(model.costs, model.artifact, model.plain, 0.4)
    assert found.weights == pytest.approx(1.0, abs=0.05)
    assert found.counts(0.4).tolist() == pytest.approx([160] * LAYERS, abs=3)


def test_the_cheapest_of_three_is_chosen() -> None:
    model = Model([4.0, 1.0, 0.5])
    chosen, facts = layer_budgets(model.costs, model.artifact, (0.2, 0.4, 0.6, 1.0))
    assert facts["chosen"] == "weighted"
    assert sum(facts["rise_weighted"]) < min(sum(facts["rise_uniform"]), sum(facts["rise_measured"]))
    assert model.cost(chosen.budgets(0.4)) == pytest.approx(facts["rise_weighted"][1], abs=1e-4)


@given(POSITIVE, POSITIVE, POSITIVE)
def test_weights_keep_their_mean_and_move_within_bounds(weights: Any, seen: Any, said: Any) -> None:
    weights = weights / np.exp(np.log(weights).mean())
    moved = reweighed(weights, seen, said)
    assert np.exp(np.log(moved).mean()) == pytest.approx(1.0)
    ratio = moved / weights
    assert ratio.max() / ratio.min() <= 3.0 + 1e-9


def test_noise_and_layers_without_neurons_to_lose_move_nothing_far() -> None:
    moved = reweighed(np.ones(3), np.array([-0.01, 0.02, 0.02]), np.array([0.02, 0.02, 0.0]))
    assert np.isfinite(moved).all()
    assert moved[0] < moved[2] < moved[1]
