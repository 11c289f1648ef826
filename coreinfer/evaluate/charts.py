"""The pictures of a report, as SVG text: NLL rise against keep, prompt length, position and match similarity.

One colour and dash a policy in all of them. Axes follow the policies that compete; what lies far above them (random)
leaves the picture at its top, and the tables have its numbers. Text stays text, so that the page's fonts set it.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.evaluate.plan import REFRESH, RENEWED
from coreinfer.evaluate.rows import Row
from coreinfer.evaluate.scoring import WINDOW, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.float64]
Series = dict[str, tuple[Sequence[float], Sequence[float]]]  # policy -> x, y
RISE = "NLL rise, nats per token"
INK, GREY, GRID = "#22262e", "#6d7480", "#e6e4df"
COLOURS = {
    "random": "#b6b9bf", "wrong-cluster": "#9a8f84", "global": "#dd9f2b", "paper-stability": "#c4553f",
    "griffin": "#d583b0", "stability": "#8d64c2", "glass": "#49a6a6", "similarity": "#2f74d0", "hybrid": "#2f9a5f",
    "auto": "#14202e", "oracle": "#8b93a1",
}  # fmt: skip
OTHERS = ("#7b5a3a", "#b98b5e", "#5c7f8a", "#8fb0b8", "#6b6f2a", "#a5a95a")  # of artifacts compared with
DASHES = {
    "wrong-cluster": (0, (1, 1.6)), "oracle": (0, (4, 2)), "random": (0, (1, 1.6)),
    **{name + REFRESH: (0, (2, 1)) for name in RENEWED},
}  # fmt: skip
FLOOR = ("random",)  # axes need not hold it, and lines would not show it
SHOWN = 3  # keeps side by side at most
BINS = 6  # of similarity, with equally many texts each
STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "coreinfer", "font.size": 10, "axes.edgecolor": "#c9c6bf",
    "axes.labelcolor": GREY, "text.color": INK, "xtick.color": GREY, "ytick.color": GREY, "axes.titlesize": 11,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "axes.axisbelow": True,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "legend.frameon": False, "figure.facecolor": "none",
    "axes.facecolor": "none", "xtick.major.size": 0, "ytick.major.size": 0, "grid.linewidth": 0.8,
}  # fmt: skip


def colour(policy: str, policies: Sequence[str]) -> str:
    """A policy's colour, refreshed or not; those of compared artifacts by their place."""
    more = [name for name in policies if name.removesuffix(REFRESH) not in COLOURS]
    return COLOURS.get(policy.removesuffix(REFRESH)) or OTHERS[more.index(policy) % len(OTHERS)]


def shown_keeps(results: Results) -> list[float]:
    """Up to ``SHOWN`` keeps, from the largest to the smallest."""
    keeps = sorted(results.plan.keeps, reverse=True)
    picks = np.linspace(0, len(keeps) - 1, min(SHOWN, len(keeps))).round().astype(int)
    return [keeps[i] for i in picks]


def _svg(draw: Callable[["Figure"], None], width: float, height: float, title: str) -> str:
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    drawn = io.StringIO()
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return inline(drawn.getvalue(), title)


def inline(svg: str, title: str) -> str:
    """An SVG file as an element of a page, which decides on its size."""
    tag, rest = svg.partition("<svg ")[2].split(">", 1)
    sizeless = re.sub(r'(width|height)="[^"]*"', "", tag)
    return f'<svg role="img" aria-label="{title}" {sizeless}>{rest}'


def _limit(axes: "Axes", series: Series) -> None:
    """Let the policies that compete fill the height."""
    values = [value for _, y in series.values() for value in y]
    low, high = min(0.0, min(values)), max(0.0, max(values))
    room = max(high - low, 1e-3)
    axes.set_ylim(low - 0.08 * room, high + 0.12 * room)


def _lines(axes: "Axes", series: Series, marker: str = "o") -> list[Any]:
    """One line a policy, ``auto`` on top."""
    axes.axhline(0, color="#a9a59c", linewidth=1, zorder=1)
    drawn = []
    for name, (x, y) in series.items():
        made, heavy = colour(name, list(series)), name == "auto"
        drawn += axes.plot(
            x, y, marker=marker, color=made, linestyle=DASHES.get(name, "-"), markersize=3.4, label=name,
            linewidth=2.4 if heavy else 1.5, zorder=4 if heavy else 3,
        )  # fmt: skip
    _limit(axes, series)
    return drawn


def _panels(
    results: Results,
    series_of: Callable[[float], Series],
    label: str,
    title: str,
    marker: str = "o",
    ticks: Sequence[int] = (),
    threshold: float | None = None,
) -> str:
    """A panel for each keep, one legend; ``ticks`` are the words at x = 0, 1, 2, ``threshold`` a line to draw."""
    keeps = shown_keeps(results)

    def draw(figure: "Figure") -> None:
        lines: list[Any] = []
        for axes, keep in zip(figure.subplots(1, len(keeps), squeeze=False)[0], keeps, strict=True):
            lines = _lines(axes, series_of(keep), marker)
            axes.set_title(f"keep {keep:g}")
            if threshold is not None:
                axes.axvline(threshold, color=GREY, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
            if ticks:
                axes.set_xticks(range(len(ticks)), [str(tick) for tick in ticks])
        figure.axes[0].set_ylabel(RISE)
        figure.supxlabel(label, size=10, color=GREY)
        _legend(figure, lines)

    return _svg(draw, 10.4, 3.6, title)


def against_keep(rows: Sequence[Row], results: Results) -> str:
    """At the first prompt length; "" for a single keep."""
    tokens, keeps = results.plan.prompt_tokens[0], sorted(results.plan.keeps)
    if len(keeps) < 2:
        return ""
    at = {(row.policy, row.keep): row.nll_rise for row in rows if row.domain is None and row.prompt_tokens == tokens}
    series: Series = {
        name: (keeps, [at[name, keep] for keep in keeps]) for name in _policies(results) if name not in FLOOR
    }

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        lines = _lines(axes, series)
        axes.set_xticks(keeps, [f"{keep:g}" for keep in keeps])
        axes.set_xlabel("keep: share of MLP neurons kept")
        axes.set_ylabel(RISE)
        _legend(figure, lines)

    return _svg(draw, 10.4, 3.9, "NLL rise against keep")


def against_prompt(rows: Sequence[Row], results: Results) -> str:
    """ "" for a single prompt length."""
    lengths = sorted(results.plan.prompt_tokens)
    if len(lengths) < 2:
        return ""
    at = {(row.policy, row.keep, row.prompt_tokens): row.nll_rise for row in rows if row.domain is None}

    def series(keep: float) -> Series:
        return {
            name: (range(len(lengths)), [at[name, keep, p] for p in lengths])
            for name in _policies(results)
            if name not in FLOOR
        }

    return _panels(results, series, "prompt tokens", "NLL rise against prompt length", ticks=lengths)


def against_position(results: Results) -> str:
    """Means over the windows of the continuation, at the first prompt length."""
    count = results.windows.shape[-1]
    ends = np.minimum(np.arange(1, count + 1) * WINDOW, results.plan.continuation_tokens)
    middles = ((np.arange(count) * WINDOW + ends) / 2).tolist()
    label = f"position in the continuation, windows of {WINDOW}"

    def series(keep: float) -> Series:
        return {name: (middles, results.windows[0, r].mean(0).tolist()) for name, r in _at(results, keep).items()}

    return _panels(results, series, label, "NLL rise against position", marker="")


def against_similarity(results: Results, threshold: float) -> str:
    """Means over texts in bins of match similarity, at the first prompt length; "" for too few texts."""
    similarities = results.similarities[0]
    bins = [part for part in np.array_split(np.argsort(similarities, kind="stable"), BINS) if len(part)]
    if len(similarities) < 2 * BINS:
        return ""
    middles = [float(similarities[part].mean()) for part in bins]

    def series(keep: float) -> Series:
        rises = {name: results.numbers[0, r, :, 0] for name, r in _at(results, keep).items()}
        return {name: (middles, [float(rise[part].mean()) for part in bins]) for name, rise in rises.items()}

    label = "cosine similarity of the prompt to its nearest cluster; dotted: the threshold of a weak match"
    return _panels(results, series, label, "NLL rise against match similarity", threshold=threshold)


def _policies(results: Results) -> list[str]:
    return list(dict.fromkeys(policy for _, policy in results.rungs))


def _at(results: Results, keep: float) -> dict[str, int]:
    """The places of the policies that lines show."""
    return {policy: r for r, (one, policy) in enumerate(results.rungs) if one == keep and policy not in FLOOR}


def _legend(figure: "Figure", lines: list[Any]) -> None:
    figure.legend(handles=lines, loc="outside right center", handlelength=2.2, labelspacing=0.55)


def ladder(rows: Sequence[Row], results: Results) -> str:
    """Each policy's NLL rise with its interval, below it its KL, at the first prompt length: a column for each keep."""
    tokens, keeps, policies = results.plan.prompt_tokens[0], shown_keeps(results), _policies(results)
    at = {(row.policy, row.keep): row for row in rows if row.domain is None and row.prompt_tokens == tokens}

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(2, len(keeps), squeeze=False, sharey=True)
        for column, keep in zip(grid.T, keeps, strict=True):
            mine = [at[policy, keep] for policy in policies]
            _forest(column[0], [(row.ci_low, row.nll_rise, row.ci_high) for row in mine], policies)
            _forest(column[1], [(0.0, row.kl, row.kl) for row in mine], policies)
            column[0].set_title(f"keep {keep:g}")
            column[0].set_xlabel(RISE)
            column[1].set_xlabel("KL(dense || sparse), nats per token")
        for axes in grid[:, 0]:
            axes.set_yticks(range(len(policies)), policies)
            axes.set_ylim(len(policies) - 0.4, -0.6)

    return _svg(draw, 10.4, 1.6 + 0.52 * len(policies), "The ladder: NLL rise of each policy with its interval, and KL")


Ends = tuple[float | None, float, float | None]  # low, mean, high


def _forest(axes: "Axes", values: list[Ends], policies: list[str]) -> None:
    """A point and a bar a policy; one that is far off is written at the edge."""
    near = [v for name, ends in zip(policies, values, strict=True) if name not in FLOOR for v in ends if v is not None]
    low, high = min([0.0, *near]), max([0.0, *near])
    room = 0.06 * max(high - low, 1e-3)
    axes.set_xlim(low - room, high + room)
    axes.axvline(0, color="#a9a59c", linewidth=1, zorder=1)
    axes.grid(False, axis="y")
    for y, (name, (start, mean, end)) in enumerate(zip(policies, values, strict=True)):
        made = colour(name, policies)
        if mean > high + room:
            edge = axes.get_yaxis_transform()
            axes.text(0.99, y, f"{mean:.2f} →", color=GREY, ha="right", va="center", transform=edge, zorder=5)
        elif start is not None and end is not None:
            axes.plot([start, end], [y, y], color=made, linewidth=2.2, alpha=0.5, solid_capstyle="butt")
        axes.plot(mean, y, "o", color=made, markersize=6.5 if name == "auto" else 5, zorder=3)
