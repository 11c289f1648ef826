"""What the pictures of a report share: colours and dashes by policy, one style, and how a figure becomes SVG text.

Text stays text, so that the page's fonts set it.
"""

import io
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from coreinfer.evaluate.plan import REFRESH, RENEWED
from coreinfer.evaluate.scoring import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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


def policies_of(results: Results) -> list[str]:
    return list(dict.fromkeys(policy for _, policy in results.rungs))


def svg(draw: Callable[["Figure"], None], width: float, height: float, title: str) -> str:
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
