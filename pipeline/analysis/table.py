"""The findings on a terminal: numbers in tables, then in words where they disagree with the paper."""

from typing import Any

from coreinfer.output import show
from coreinfer.wording import counted
from pipeline.analysis import paper
from pipeline.analysis.records import Findings, Mean, Stable

BY_LOT = (
    "by lot: if each token drew its core neurons by lot; more than that shows a preference, the text's or the model's"
)


def print_findings(found: Findings, facts: dict[str, Any]) -> None:
    """All of it on stdout."""
    dense = found.dense_nll
    show(
        f"{counted(dense.texts, 'text')}, {facts['model']} ({facts['layers']} layers of {facts['width']} neurons): "
        f"dense NLL {dense.mean:.4f} nats per token, {facts['prompt_tokens']} prompt tokens and "
        f"{facts['continuation_tokens']} more",
        "", _costs(found),
        "", _tokens(found),
        "", _stability(found.stability),
        f"[dim]{BY_LOT}[/]",
        "", _similarity(found),
        "", *paper_words(found),
    )  # fmt: skip


def _table(*names: str) -> Any:
    from rich.table import Table

    table = Table(box=None, header_style="dim")
    for name in names:
        table.add_column(name, justify="right")
    return table


def _costs(found: Findings) -> Any:
    table = _table("alpha", "NLL rise", "95% interval", "", "keep", "NLL rise", "95% interval")
    for a, k in zip(found.against_alpha, found.against_keep, strict=False):
        table.add_row(f"{a.alpha:g}", *_cells(a.nll_rise, 4), "", f"{k.keep:g}", *_cells(k.nll_rise, 4))
    more = found.against_alpha[len(found.against_keep) :]
    for a in more:
        table.add_row(f"{a.alpha:g}", *_cells(a.nll_rise, 4))
    for k in found.against_keep[len(found.against_alpha) :]:
        table.add_row("", "", "", "", f"{k.keep:g}", *_cells(k.nll_rise, 4))
    return table


def _tokens(found: Findings) -> Any:
    """Distances and windows side by side: both double."""
    table = _table("tokens apart", "overlap", "95% interval", "", "window", "neurons used", "95% interval", "by lot")
    near = [(str(n.distance), *_cells(n.overlap)) for n in found.near] + [("two texts", *_cells(found.apart))]
    used = [(str(u.tokens), *_cells(u.share), f"{u.independent:.3f}") for u in found.used]
    for i in range(max(len(near), len(used))):
        left = near[i] if i < len(near) else ("",) * 3
        table.add_row(*left, "", *(used[i] if i < len(used) else ()))
    return table


def _stability(rows: list[Stable]) -> Any:
    table = _table(
        "prompt", "more", "overlap", "95% interval", "by lot", "the paper", "", "energy", "95% interval", "texts"
    )
    energy = {(s.prompt_tokens, s.more_tokens): s.overlap for s in rows if s.statistic == "energy"}
    for s in rows:
        if s.statistic == "count":
            other = _cells(energy[s.prompt_tokens, s.more_tokens])
            cells = (str(s.prompt_tokens), str(s.more_tokens), *_cells(s.overlap), value(s.by_lot), value(s.paper))
            table.add_row(*cells, "", *other, f"{s.overlap.texts:,}")
    return table


def _similarity(found: Findings) -> Any:
    table = _table("meaning and core set", "Spearman", "95% interval", "the paper", "pairs")
    for s in found.similarity:
        interval = "" if s.low is None or s.high is None else f"{s.low:.3f} to {s.high:.3f}"
        theirs = "{:g} to {:g}".format(*s.paper) if s.paper else ""
        table.add_row(s.statistic, value(s.spearman, 3), interval, theirs, f"{s.pairs:,}")
    return table


def paper_words(found: Findings) -> list[str]:
    """How many of the paper's values are met, and a sentence on each that is not."""
    known = len(paper.STABILITY) + 1
    met = known - len(found.disagreements)
    words = f"{met} of the paper's {known} values are met within {paper.TOLERANCE:g}"
    return [f"{words}; the others:", *found.disagreements] if found.disagreements else [f"{words}."]


def value(number: float | None, digits: int = 2) -> str:
    return "" if number is None else f"{number:.{digits}f}"


def _cells(mean: Mean, digits: int = 3) -> tuple[str, str]:
    interval = "" if mean.low is None or mean.high is None else f"{mean.low:.{digits}f} to {mean.high:.{digits}f}"
    return f"{round(mean.mean, digits) + 0.0:.{digits}f}", interval
