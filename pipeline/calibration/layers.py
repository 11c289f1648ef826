"""How many neurons each layer keeps: measured alone, corrected for how layers add up, and kept only if it pays.

First each layer is cut alone (``budgets``), as if costs added up. They do not: a layer's cut costs more, or less, when
all the others are cut, too. So a weight on each layer's curve is found by cutting it a little further than the others
at the keep that matters, until a neuron costs about the same in every layer. Uniform budgets, the curves as they were
measured and the weighted ones are then compared.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import Artifact
from pipeline.calibration import budgets, numbers
from pipeline.calibration.sample import Plan

Costs = Callable[[str, Sequence[Plan]], NDArray[np.float64]]  # a stage's name, plans -> rises (texts, plans)
Hulls = list[tuple[NDArray[np.float64], NDArray[np.float64]]]
ROUNDS = 3  # of weighing: each halves, about, what is unequal
CUT = 0.15  # of a layer's neurons, to see what the last of them are worth
STEP = 3.0  # what is seen over what was said counts within this factor, either way, in a round


@dataclass(frozen=True)
class Layers:
    """Layer curves as hulls, and a weight for each, (L,)."""

    hulls: Hulls
    weights: NDArray[np.float64]
    width: int

    def counts(self, keep: float) -> NDArray[np.int64]:
        """Neurons of each layer, (L,)."""
        weighted = [(x, y * w) for (x, y), w in zip(self.hulls, self.weights, strict=True)]
        return budgets.spread(weighted, keep, self.width)

    def price(self, layer: int, count: int, fewer: int) -> float:
        """What the layer's curve, unweighted, says that ``fewer`` neurons instead of ``count`` cost."""
        x, y = self.hulls[layer]
        high, low = np.interp(np.array([fewer, count]) / self.width, x, y)
        return float(high - low)


def layer_budgets(costs: Costs, artifact: Artifact, grid: Sequence[float]) -> tuple[Artifact, dict[str, Any]]:
    """The artifact with the budgets that cost least at three keeps around its default, and what that was seen from."""
    keep, width = artifact.manifest.default_keep, artifact.manifest.width
    curves = _alone(costs, artifact)
    hulls = [budgets.smooth(budgets.convex(budgets.KEEPS, curve)) for curve in curves]
    plain = Layers(hulls, np.ones(len(hulls)), width)
    tried = {"uniform": artifact}
    for name, layers in (("measured", plain), ("weighted", weigh(costs, artifact, plain, keep))):
        tried[name] = with_budgets(artifact, grid, np.stack([layers.counts(k) for k in grid]))
    keeps = [keep / 2, keep, min(1.0, keep * 1.5)]
    every = [budgets.kept(a.budgets(k), artifact, "hybrid") for a in tried.values() for k in keeps]
    rises = costs("compare budgets", every).mean(0).reshape(len(tried), -1)
    chosen = list(tried)[numbers.best(rises.T)]
    facts = {"keeps": list(budgets.KEEPS), "rise_of_one_layer": np.round(curves, 5).tolist(), "compared_at": keeps}
    facts |= {f"rise_{name}": np.round(row, 5).tolist() for name, row in zip(tried, rises, strict=True)}
    return tried[chosen], facts | {"chosen": chosen}


def _alone(costs: Costs, artifact: Artifact) -> NDArray[np.float64]:
    """What it costs to cut one layer to each of ``budgets.KEEPS``, (L, keeps)."""
    layers = range(artifact.manifest.layers)
    cuts = [budgets.cut(layer, keep, artifact, "hybrid") for layer in layers for keep in budgets.KEEPS]
    means: NDArray[np.float64] = costs("layer budgets", cuts).mean(0)
    return means.reshape(len(layers), -1)


def weigh(costs: Costs, artifact: Artifact, layers: Layers, keep: float) -> Layers:
    """Weights by what each layer's last neurons cost where all layers are cut, over what its curve says of them."""
    for number in range(1, ROUNDS + 1):
        counts = layers.counts(keep)
        fewer = np.maximum(1, np.ceil(counts * (1 - CUT)).astype(np.int64))
        plans = [budgets.kept(_but(counts, layer, fewer[layer]), artifact, "hybrid") for layer in range(len(counts))]
        rises = costs(f"weigh layers {number}", [budgets.kept(counts, artifact, "hybrid"), *plans]).mean(0)
        said = [layers.price(layer, counts[layer], fewer[layer]) for layer in range(len(counts))]
        layers = replace(layers, weights=reweighed(layers.weights, rises[1:] - rises[0], np.array(said)))
    return layers


def reweighed(
    weights: NDArray[np.float64], seen: NDArray[np.float64], said: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Half a step (of logarithms) from the weights (L,) to seen / said; their geometric mean stays 1.

    A difference that is no cost is noise, and counts as little; what a layer without neurons to lose says is left out.
    """
    ratio = np.maximum(seen, 1e-6) / np.maximum(said * weights, 1e-9)
    usable = said > 1e-9
    middle = np.exp(np.log(ratio[usable]).mean()) if usable.any() else 1.0
    moved = weights * np.where(usable, np.clip(ratio / middle, 1 / STEP, STEP) ** 0.5, 1.0)
    return np.asarray(moved / np.exp(np.log(moved).mean()))


def _but(counts: NDArray[np.int64], layer: int, count: int) -> NDArray[np.int64]:
    """The same counts with another one for one layer."""
    out = counts.copy()
    out[layer] = count
    return out


def with_budgets(artifact: Artifact, grid: Sequence[float], table: NDArray[np.int64]) -> Artifact:
    """The artifact with other layer budgets."""
    return replace(artifact, budget_grid=np.array(grid, np.float64), budget_table=table.astype(np.float64))
