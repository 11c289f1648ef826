"""What an analysis leaves in its folder: pictures, report.html and, last, analysis.json; each file in one go."""

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coreinfer.evaluate.drawing import inline
from coreinfer.evaluate.saving import REMEDY
from coreinfer.places import moved_in, writing
from pipeline.analysis.charts import PAPER, draw_all, styled
from pipeline.analysis.page import FIGURES, page
from pipeline.analysis.plan import Plan
from pipeline.analysis.records import Findings, Pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 200


def save(folder: Path, found: Findings, pairs: Pairs, plan: Plan, facts: dict[str, Any]) -> None:
    """Write all of it into a folder that exists.

    Raises:
        CoreInferError: the disk refuses.
    """
    figures, svgs = draw_all(found, pairs, plan), dict[str, str]()
    with writing(folder, REMEDY):
        for name, figure in figures.items():
            png, svg = _drawn(figure, "png", {"Software": None}), _drawn(figure, "svg", {"Date": None})
            _put(folder / f"{name}.png", png)
            _put(folder / f"{name}.svg", svg)
            svgs[name] = inline(svg.decode(), FIGURES[name][0])
        report, numbers = page(found, facts, svgs), json.dumps({**facts, **found.as_json()}, indent=1) + "\n"
        _put(folder / "report.html", report.encode())
        _put(folder / "analysis.json", numbers.encode())


def _drawn(figure: "Figure", kind: str, metadata: dict[str, None]) -> bytes:
    made = io.BytesIO()
    with styled():
        figure.savefig(made, format=kind, dpi=DPI, facecolor=PAPER, metadata=metadata)
    return made.getvalue()


def _put(path: Path, content: bytes) -> None:
    with moved_in(path) as part:
        part.write_bytes(content)
