"""What an analysis leaves in its folder: pictures, report.html and, last, analysis.json; each file in one go."""

import io
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreinfer.places import writing
from pipeline.analysis.charts import PAPER, draw_all, styled
from pipeline.analysis.page import FIGURES, page
from pipeline.analysis.plan import Plan
from pipeline.analysis.records import Findings, Pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200
REMEDY = "choose another --output"


def save(folder: Path, found: Findings, pairs: Pairs, plan: Plan, facts: dict[str, Any]) -> None:
    """Write all of it into a folder that exists.

    Raises:
        CoreInferError: the disk refuses.
    """
    figures, svgs = draw_all(found, pairs, plan), dict[str, str]()
    with writing(folder, REMEDY):
        for name, figure in figures.items():
            png, svg = _drawn(figure, "png", {"Software": None}), _drawn(figure, "svg", {"Date": None})
            _put(folder / f"{name}.png", lambda part, png=png: part.write_bytes(png))  # type: ignore[misc]
            _put(folder / f"{name}.svg", lambda part, svg=svg: part.write_bytes(svg))  # type: ignore[misc]
            svgs[name] = _inline(svg.decode(), FIGURES[name][0])
        report, numbers = page(found, facts, svgs), json.dumps({**facts, **found.as_json()}, indent=1) + "\n"
        _put(folder / "report.html", lambda part: part.write_text(report, "utf-8"))
        _put(folder / "analysis.json", lambda part: part.write_text(numbers, "utf-8"))


def _drawn(figure: "Figure", kind: str, metadata: dict[str, None]) -> bytes:
    made = io.BytesIO()
    with styled():
        figure.savefig(made, format=kind, dpi=DPI, facecolor=PAPER, metadata=metadata)
    return made.getvalue()


def _inline(svg: str, title: str) -> str:
    """An SVG file as an element of a page, which decides on its size."""
    tag, rest = svg.partition("<svg ")[2].split(">", 1)
    sizeless = re.sub(r'(width|height)="[^"]*"', "", tag)
    return f'<svg role="img" aria-label="{title}" {sizeless}>{rest}'


def _put(path: Path, write: Callable[[Path], Any]) -> None:
    """Beside its place first, so that a reader never sees half of a file."""
    part = path.with_name(f".{path.name}.part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()
