"""The ladder as a picture: each policy's NLL rise with its interval, and its KL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coreinfer.evaluate.drawing import FLOOR, GREY, RISE, colour, policies_of, shown_keeps, svg
from coreinfer.evaluate.rows import Row
from coreinfer.evaluate.scoring import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Ends = tuple[float | None, float, float | None]  # low, mean, high


def ladder(rows: Sequence[Row], results: Results) -> str:
    """Each policy's NLL rise with its interval, below it its KL, at the first prompt length: a column for each keep."""
    tokens, keeps, policies = results.plan.prompt_tokens[0], shown_keeps(results), policies_of(results)
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

    return svg(draw, 10.4, 1.6 + 0.52 * len(policies), "The ladder: NLL rise of each policy with its interval, and KL")


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
