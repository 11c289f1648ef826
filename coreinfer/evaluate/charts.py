"""A report's lines: NLL rise against keep, prompt length, position and match similarity.

Axes follow the policies that compete; what lies far above them (random) leaves the picture at its top, and the tables
have its numbers.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.evaluate.drawing import DASHES, FLOOR, GREY, RISE, colour, policies_of, shown_keeps, svg
from coreinfer.evaluate.rows import Row
from coreinfer.evaluate.scoring import WINDOW, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Series = dict[str, tuple[Sequence[float], Sequence[float]]]  # policy -> x, y
BINS = 6  # of similarity, with equally many texts each


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

    return svg(draw, 10.4, 3.6, title)


def against_keep(rows: Sequence[Row], results: Results) -> str:
    """At the first prompt length; "" for a single keep."""
    tokens, keeps = results.plan.prompt_tokens[0], sorted(results.plan.keeps)
    if len(keeps) < 2:
        return ""
    at = {(row.policy, row.keep): row.nll_rise for row in rows if row.domain is None and row.prompt_tokens == tokens}
    series: Series = {
        name: (keeps, [at[name, keep] for keep in keeps]) for name in policies_of(results) if name not in FLOOR
    }

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        lines = _lines(axes, series)
        axes.set_xticks(keeps, [f"{keep:g}" for keep in keeps])
        axes.set_xlabel("keep: share of MLP neurons kept")
        axes.set_ylabel(RISE)
        _legend(figure, lines)

    return svg(draw, 10.4, 3.9, "NLL rise against keep")


def against_prompt(rows: Sequence[Row], results: Results) -> str:
    """ "" for a single prompt length."""
    lengths = sorted(results.plan.prompt_tokens)
    if len(lengths) < 2:
        return ""
    at = {(row.policy, row.keep, row.prompt_tokens): row.nll_rise for row in rows if row.domain is None}

    def series(keep: float) -> Series:
        return {
            name: (range(len(lengths)), [at[name, keep, p] for p in lengths])
            for name in policies_of(results)
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


def _at(results: Results, keep: float) -> dict[str, int]:
    """The places of the policies that lines show."""
    return {policy: r for r, (one, policy) in enumerate(results.rungs) if one == keep and policy not in FLOOR}


def _legend(figure: "Figure", lines: list[Any]) -> None:
    figure.legend(handles=lines, loc="outside right center", handlelength=2.2, labelspacing=0.55)
