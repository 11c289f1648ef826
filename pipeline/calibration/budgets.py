"""How many neurons each layer keeps: by what it costs to cut that layer alone.

Each layer's cost, measured at a few keeps, is made convex; then the wanted number of neurons goes, piece by piece, to
the layer that gains most from it. For convex costs that add up, this greedy split is the best one, and budgets never
fall as keep rises. That costs add up is an approximation, which ``layers`` corrects.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from coreinfer.artifact import Artifact
from coreinfer.neurons import uniform_budgets
from coreinfer.settings import Source
from pipeline.calibration.sample import Case, Plan

Floats = NDArray[np.floating]
KEEPS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8)  # of one layer, the others whole; at 1 nothing is lost
FINE = 128  # points of a smooth curve


def cut(layer: int, keep: float, artifact: Artifact, source: Source) -> Plan:
    """Keep a share of one layer's neurons and all of every other's."""
    layers, width = artifact.manifest.layers, artifact.manifest.width
    budgets = np.full(layers, width)
    budgets[layer] = uniform_budgets(keep, layers, width)[layer]
    return kept(budgets, artifact, source)


def kept(budgets: NDArray[np.int64], artifact: Artifact, source: Source, skip: int = 0) -> Plan:
    """Keep the best ``budgets`` (L,) neurons of each layer."""

    def plan(case: Case) -> NDArray[np.bool_]:
        return case.ranks(artifact, source, skip) < budgets[:, None]

    return plan


def convex(keeps: Sequence[float], costs: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The lower convex hull of a layer's costs (k,) at ``keeps`` and 0 at keep 1 -> its points, rising keeps.

    Costs below 0 are noise and count as 0, so the hull never rises.
    """
    points = list[tuple[float, float]]()
    for point in [*zip(keeps, np.maximum(costs, 0).tolist(), strict=True), (1.0, 0.0)]:
        while len(points) > 1 and _above(points[-2], points[-1], point):
            points.pop()
        points.append(point)
    x, y = zip(*points, strict=True)
    return np.array(x), np.array(y)


def smooth(hull: tuple[Floats, Floats]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same hull without corners, at ``FINE`` points: with them, a split gives one layer all between two measured
    keeps before another gets any.
    """
    x = np.linspace(hull[0][0], 1.0, FINE)
    with np.errstate(over="ignore"):  # of slopes that are almost nothing
        y = PchipInterpolator(*hull)(x)
    return convex(x[:-1].tolist(), y[:-1])


def _above(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    """Whether b lies on or above the line from a to c."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def spread(hulls: Sequence[tuple[Floats, Floats]], keep: float, width: int) -> NDArray[np.int64]:
    """Neurons for each layer, (L,), that cost least in all by the layers' hulls; their sum is round(keep * L * F)."""
    total = round(keep * width * len(hulls))
    budgets = np.array([x[0] * width for x, _ in hulls])
    if budgets.sum() >= total:  # below what was measured
        return _whole(budgets * total / budgets.sum(), total)
    pieces = [
        (float(dy / dx), layer, float(dx * width))
        for layer, (x, y) in enumerate(hulls)
        for dx, dy in zip(np.diff(x), np.diff(y), strict=True)
    ]
    for _, layer, size in sorted(pieces):  # steepest fall first; a layer's own pieces are in this order already
        budgets[layer] += min(size, total - budgets.sum())
    return _whole(np.minimum(budgets, width), total)


def _whole(budgets: Floats, total: int) -> NDArray[np.int64]:
    """Rounded down, and what is missing to ``total`` to the largest remainders."""
    floor: NDArray[np.int64] = np.floor(budgets + 1e-9).astype(np.int64)
    most = np.argsort(floor - budgets, kind="stable")[: max(0, total - int(floor.sum()))]
    floor[most] += 1
    return floor


def table(hulls: Sequence[tuple[Floats, Floats]], grid: Sequence[float], width: int) -> NDArray[np.int64]:
    """Budgets at each keep of the grid, (n, L)."""
    return np.stack([spread(hulls, keep, width) for keep in grid])
