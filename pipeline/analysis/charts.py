"""The pictures of an analysis, as matplotlib figures: shares and overlaps with 95% bands, labelled where they lie.

Grey dotted lines are what chance alone would give; hollow marks are the paper's values.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from coreinfer.evaluate.drawing import GREY, INK, RISE, STYLE
from pipeline.analysis.plan import Plan
from pipeline.analysis.records import Findings, Mean, Pairs, Similar, Stable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN = "#2f74d0", "#c4553f", "#2f9a5f"
PROMPT_COLOURS = {8: "#dd9f2b", 64: GREEN, 256: BLUE}
DOTTED = (0, (1, 1.8))
PAPER = "#fcfbf8"
WIDTH = 10.4
LETTERS = {"font.family": "DejaVu Sans"}  # comes with matplotlib: a picture is the same everywhere
NAMES = {"count": "count, as in the paper", "energy": "energy"}


@contextmanager
def styled() -> Iterator[None]:
    """The project's look, for drawing and for saving."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE, LETTERS]):
        yield


def draw_all(found: Findings, pairs: Pairs, plan: Plan) -> dict[str, "Figure"]:
    """Every figure by the name of its file."""
    with styled():
        return {
            "quality": quality(found, plan),
            "tokens": tokens(found, plan),
            "stability": stability(found, plan),
            "similarity": similarity(found, pairs),
        }


def _figure(height: float, columns: int, **how: Any) -> tuple["Figure", Sequence["Axes"]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained", facecolor=PAPER)
    FigureCanvasAgg(figure)
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.08)  # type: ignore[union-attr,call-arg]
    return figure, figure.subplots(1, columns, squeeze=False, **how)[0]


def _line(axes: "Axes", x: Sequence[float], means: Sequence[Mean], colour: str, label: str = "") -> None:
    """Means with their band; the label stands after the last point."""
    y = [m.mean for m in means]
    low, high = ([m.mean if end is None else end for m, end in ends] for ends in _ends(means))
    axes.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(x, y, "-o", color=colour, linewidth=1.8, markersize=4, zorder=3)
    if label:
        _after(axes, x[-1], y[-1], label, colour)


def _ends(means: Sequence[Mean]) -> tuple[list[tuple[Mean, float | None]], list[tuple[Mean, float | None]]]:
    return [(m, m.low) for m in means], [(m, m.high) for m in means]


def _after(axes: "Axes", x: float, y: float, label: str, colour: str, **how: Any) -> None:
    style = {"xytext": (8, 0), "va": "center", "fontsize": 9.5, **how}
    axes.annotate(label, (x, y), textcoords="offset points", color=colour, annotation_clip=False, **style)


def _doubling_axis(axes: "Axes", ticks: Sequence[int], label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel(label)


def quality(found: Findings, plan: Plan) -> "Figure":
    """NLL rise against alpha and against keep; one scale, so that their weight can be compared."""
    figure, (left, right) = _figure(3.9, 2, sharey=True)
    _costs(left, [(cost.alpha, cost.nll_rise) for cost in found.against_alpha], plan.alpha)
    _costs(right, [(cost.keep, cost.nll_rise) for cost in found.against_keep], plan.keep)
    left.set_title(f"Core neurons of a token; keep {plan.keep:g}")
    left.set_xlabel("alpha, share of a token's neurons (eq. 1)")
    left.set_ylabel(RISE)
    right.set_title(f"Core neurons of a prompt; alpha {plan.alpha:g}")
    right.set_xlabel("keep, share of a layer's neurons, the paper's beta (eq. 2)")
    return figure


def _costs(axes: "Axes", points: list[tuple[float, Mean]], fixed: float) -> None:
    """A line with its values; the one that is fixed in the other panel is dark."""
    x, rises = [at for at, _ in points], [rise for _, rise in points]
    axes.axhline(0, color="#a9a59c", linewidth=1, zorder=1)
    _line(axes, x, rises, BLUE)
    for at, rise in points:
        words = f"{round(rise.mean, 2) + 0.0:.2f}".replace("-", "−")
        _after(axes, at, rise.mean, words, INK if at == fixed else GREY, xytext=(3, 6), va="bottom", fontsize=8.5)
    axes.plot(fixed, dict(points)[fixed].mean, "o", color=INK, markersize=6.5, zorder=4)
    axes.set_xscale("log", base=2)
    axes.set_xticks(x, [f"{at:g}" for at in x])
    axes.minorticks_off()
    axes.margins(0.09, 0.1)


def tokens(found: Findings, plan: Plan) -> "Figure":
    """How alike tokens are by distance; how many neurons a window uses."""
    figure, (left, right) = _figure(3.9, 2)
    distances = [n.distance for n in found.near]
    _line(left, distances, [n.overlap for n in found.near], BLUE)
    label = "two tokens of one text"
    _after(left, distances[0], found.near[0].overlap.mean, label, BLUE, xytext=(10, 4), va="bottom")
    _level(left, distances, found.apart.mean, "tokens of two texts", RED, "-")
    _level(left, distances, plan.alpha, "chance", GREY, DOTTED)
    left.margins(y=0.16)
    left.set_title("Overlap of two tokens' core neurons")
    left.set_ylabel("overlap, mean over layers")
    _doubling_axis(left, distances, "distance between the tokens, tokens")
    windows = [u.tokens for u in found.used]
    right.plot(windows, [u.independent for u in found.used], color=GREY, linestyle=DOTTED, linewidth=1.6, zorder=2)
    _line(right, windows, [u.share for u in found.used], BLUE)
    at = min(2, len(windows) - 1)
    _after(right, windows[at], found.used[at].share.mean, "measured", BLUE, xytext=(10, -12))
    at = min(3, len(windows) - 1)
    _after(right, windows[at], found.used[at].independent, "if tokens drew by lot", GREY, xytext=(-14, -7), ha="right")
    right.set_ylim(0, 1.05)
    right.set_title("Neurons that a window of tokens uses")
    right.set_ylabel("share of a layer's neurons")
    _doubling_axis(right, windows, "window, tokens")
    return figure


def _level(axes: "Axes", x: Sequence[float], y: float, label: str, colour: str, dash: Any) -> None:
    axes.axhline(y, color=colour, linewidth=1.6, linestyle=dash, zorder=1)
    _after(axes, x[-1], y, label, colour, xytext=(0, -4), va="top", ha="right")


def stability(found: Findings, plan: Plan) -> "Figure":
    """Overlap of a prompt's core set with that of prompt and more, a panel for each statistic."""
    statistics = list(dict.fromkeys(s.statistic for s in found.stability))
    figure, panels = _figure(4.2, max(1, len(statistics)), sharey=True)
    ticks = sorted({s.more_tokens for s in found.stability})
    for axes, statistic in zip(panels, statistics, strict=False):
        for prompt, colour in PROMPT_COLOURS.items():
            mine = [s for s in found.stability if (s.statistic, s.prompt_tokens) == (statistic, prompt)]
            if mine:
                _grown(axes, mine, colour)
        _level(axes, ticks, plan.keep, "unrelated sets", GREY, "-")
        axes.set_title(NAMES[statistic])
        axes.set_ylim(min(0.95 * plan.keep, 0.5) - 0.08, 1.01)
        _doubling_axis(axes, ticks, "tokens read after the prompt")
    panels[0].set_ylabel("overlap with the prompt's core set")
    return figure


def _grown(axes: "Axes", mine: list[Stable], colour: str) -> None:
    """One prompt length: ours, by lot, the paper's."""
    x = [s.more_tokens for s in mine]
    _line(axes, x, [s.overlap for s in mine], colour, f"{mine[0].prompt_tokens}-token\nprompt")
    lots = [(s.more_tokens, s.by_lot) for s in mine if s.by_lot is not None]
    axes.plot(*np.array(lots).reshape(-1, 2).T, color=colour, linestyle=DOTTED, linewidth=1.6, zorder=2)
    if len(lots) > 2 and mine[0].prompt_tokens == 64:
        _after(axes, *lots[-2], "if tokens drew by lot", colour, xytext=(7, 5), va="bottom")
    theirs = [(s.more_tokens, s.paper) for s in mine if s.paper is not None]
    if theirs and mine[0].prompt_tokens == min(PROMPT_COLOURS):
        _after(axes, *theirs[0], "the paper", colour, xytext=(-4, -9), va="top")
    axes.plot(
        *np.array(theirs).reshape(-1, 2).T, "D", color=colour, markerfacecolor=PAPER, markersize=7,
        markeredgewidth=1.5, zorder=4,
    )  # fmt: skip


def similarity(found: Findings, pairs: Pairs) -> "Figure":
    """Every pair of texts: cosine of meanings against overlap of core sets, and the means of eighths."""
    figure, panels = _figure(4.2, len(found.similarity), sharey=True)
    for axes, similar, laps in zip(panels, found.similarity, pairs.overlaps, strict=True):
        size = float(np.clip(9000 / max(similar.pairs, 1), 2, 18))
        axes.scatter(pairs.cosines, laps, s=size, color=BLUE, alpha=0.28, linewidths=0, zorder=2, rasterized=True)
        axes.plot(*np.array(similar.bins).T, "-o", color=INK, linewidth=1.8, markersize=5, zorder=3)
        axes.set_title(f"{NAMES[similar.statistic]}: {correlation(similar)}")
        axes.set_xlabel("cosine similarity of two texts' embeddings")
        if similar.paper is not None:
            words = "the paper: ρ = {:g} to {:g}".format(*similar.paper)
            axes.text(0.98, 0.03, words, color=GREY, fontsize=9.5, ha="right", transform=axes.transAxes)
    panels[0].set_ylabel("overlap of their core sets, mean over layers")
    return figure


def correlation(similar: Similar) -> str:
    """Its value and interval, in a few letters."""
    if similar.spearman is None or similar.low is None or similar.high is None:
        return "no correlation"
    return f"ρ = {similar.spearman:.2f} ({similar.low:.2f} to {similar.high:.2f})"
