"""Figures for papers: the report's pictures by matplotlib, a column wide, without titles, and readable in grey.

Letters are outlines in the SVGs, so that a figure looks the same wherever it is set. What a line means is said by its
dash or mark as well as by its grey, and words stand beside what they name.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.artifact import Artifact
from coreinfer.evaluate.drawing import RISE, STYLE
from coreinfer.map_layout import SHEET, MapLayout
from coreinfer.picture import Look, map_figure
from coreinfer.places import moved_in
from coreinfer.report.seen import Seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.35, 7.0  # inches: one column, and two with the space between them
DPI = 400  # of the PNGs
INK, GREY, PALE = "#111111", "#666666", "#bbbbbb"
LOOK = Look(SHEET[0] / PAGE, big=19.0, small=16.0, paper="#ffffff", hues=("#c4c4c4",) * 10)  # letters of 6 and 5 points
PRINT = STYLE | {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7, "legend.fontsize": 6.5, "lines.linewidth": 1.1,
    "svg.fonttype": "path", "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.edgecolor": GREY, "axes.linewidth": 0.6, "grid.linewidth": 0.4, "grid.color": "#e2e2e2",
    "figure.facecolor": "white", "savefig.facecolor": "white",
}  # fmt: skip
METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None}}


def save_figures(artifact: Artifact, seen: Seen, folder: Path) -> list[str]:
    """A PNG and an SVG of each into a folder that is there; the same bytes each time. The names, without endings."""
    import matplotlib.style

    drawn = dict(FIGURES)
    if not artifact.calibration.get("curve"):
        del drawn["curve"]
    with matplotlib.style.context(["default", PRINT]):
        for name, draw in drawn.items():
            figure = draw(seen)
            for kind in METADATA:
                with moved_in(folder / f"{name}.{kind}") as part:
                    figure.savefig(part, format=kind, dpi=DPI, metadata=METADATA[kind])
    return list(drawn)


def _column(height: float, width: float = COLUMN) -> tuple["Figure", "Axes"]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _whole(axes: "Axes") -> None:
    """Layers have no fractions."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _map(seen: Seen) -> "Figure":
    """The clusters, two columns wide: letters need the room."""
    rows = seen.overview["clusters"]
    spots = np.array([(row["x"], SHEET[1] - row["y"]) for row in rows])
    layout = MapLayout(spots, np.array([row["r"] for row in rows]), np.array([row["group"] for row in rows]))
    return map_figure(layout, [row["terms"] for row in rows], LOOK)[0]


def _curve(seen: Seen) -> "Figure":
    """What a keep costs, to the end of its interval; the chosen keep is filled."""
    figure, axes = _column(2.1)
    points = [(row["keep"], row["rise"], row["rise_high"]) for row in seen.overview["curve"]]
    keeps, rises, highs = np.array([*points, (1.0, 0.0, 0.0)]).T
    axes.fill_between(keeps, rises, highs, color=PALE, linewidth=0, alpha=0.6)
    axes.plot(keeps, rises, "-o", color=INK, markersize=3.2, markerfacecolor="white", markeredgewidth=0.9)
    chosen = seen.overview["keep"]
    cost = float(np.interp(chosen, keeps, rises))
    axes.plot(chosen, cost, "o", color=INK, markersize=4.6, zorder=5)
    axes.annotate(f"chosen: {chosen:g}", (chosen, cost), (5, 7), textcoords="offset points")
    axes.set(xlabel="keep: share of MLP neurons kept", ylabel=RISE, xlim=(0, 1.03))
    return figure


def _budgets(seen: Seen) -> "Figure":
    """The share of its neurons that each layer keeps: a line for each keep, the artifact's own heavy."""
    figure, axes = _column(2.1)
    width, own = seen.overview["width"], seen.overview["keep"]
    lines = [row for row in seen.overview["budgets"] if row["keep"] < 1]
    nearest = min(lines, key=lambda row: abs(row["keep"] - own))
    for row in lines:
        shares, mine = np.array(row["neurons"]) / width, row is nearest
        axes.plot(shares, "-" if mine else "--", color=INK if mine else GREY, linewidth=1.6 if mine else 0.8)
        axes.annotate(f"{row['keep']:g}", (len(shares) - 1, shares[-1]), (4, 0), textcoords="offset points",
                      va="center", weight="bold" if mine else "normal")  # fmt: skip
    axes.set(xlabel="layer", ylabel="share of the layer kept", ylim=(0, 1))
    _whole(axes)
    return figure


def _layers(seen: Seen) -> "Figure":
    """Neurons in common of two clusters' cores, by layer: mean, least to most, chance."""
    laps = seen.overlaps
    figure, axes = _column(2.1)
    mean, least, most = (np.array([layer[name] for layer in laps["layers"]]) for name in ("mean", "least", "most"))
    x = np.arange(len(mean))
    axes.vlines(x, least, most, color=PALE, linewidth=3.5)
    axes.plot(x, mean, "-o", color=INK, markersize=3.2, label="mean; bar: least to most")
    axes.plot(x, laps["chance"], color=GREY, linestyle=(0, (1, 1.8)), label="chance")
    axes.set(xlabel="layer", ylabel="neurons in common", ylim=(0, 1.04))
    _whole(axes)
    axes.legend(loc="lower left")
    return figure


def _matrix(seen: Seen) -> "Figure":
    """Every two clusters, by neighbourhood."""
    figure, axes = _column(2.9)
    matrix = np.array(seen.overlaps["matrix"])
    others = matrix[~np.eye(len(matrix), dtype=bool)]
    low, high = (others.min(), others.max()) if len(others) else (0.0, 1.0)
    shown = axes.imshow(matrix, cmap="Greys", vmin=low, vmax=max(high, low + 1e-6), interpolation="nearest")
    axes.grid(False)
    axes.set(xlabel="cluster, by neighbourhood", ylabel="cluster, by neighbourhood", xticks=[], yticks=[])
    figure.colorbar(shown, ax=axes, label="neurons in common, mean over layers", shrink=0.9)
    return figure


def _sizes(seen: Seen) -> "Figure":
    """Passages of each cluster, the largest first."""
    figure, axes = _column(1.7)
    sizes = sorted((row["size"] for row in seen.overview["clusters"]), reverse=True)
    axes.bar(np.arange(len(sizes)), sizes, width=0.86, color=GREY, linewidth=0)
    axes.set(xlabel="clusters, the largest first", ylabel="passages", xticks=[])
    axes.margins(x=0.01)
    axes.grid(axis="x", visible=False)
    return figure


FIGURES: dict[str, Callable[[Seen], "Figure"]] = {
    "map": _map, "curve": _curve, "budgets": _budgets, "overlap-by-layer": _layers, "overlap": _matrix, "sizes": _sizes,
}  # fmt: skip
