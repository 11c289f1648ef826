"""Clusters as a map in one image file, from arrays; knows no artifact. ``map_layout`` says where they lie."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.map_layout import HIGH, LOW, SHEET, Floats, MapLayout, lay_out, place_labels
from coreinfer.places import check_file, writing
from coreinfer.wording import counted, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER, INK, GREY = "#fcfbf8", "#2b2f36", "#5d626c"
HUES = ("#d98880", "#dba472", "#cdb75f", "#9bb96f", "#6cb394", "#63b0bd", "#74a0cf", "#9494d1", "#b88cc6", "#d089a9")
LEADING = 1.22  # line height over letter height
REMEDY = "name a file that you may write"
FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}}


@dataclass(frozen=True)
class Look:
    """``dpi``: of the sheet's pixels, so the sheet's size; ``big``, ``small``: letter heights of a label's two lines,
    in those pixels; ``hues``: of the neighbourhoods.
    """

    dpi: float = 100
    big: float = 15.0
    small: float = 12.0
    paper: str = PAPER
    hues: tuple[str, ...] = HUES


SCREEN = Look()


def check_map(path: Path) -> None:
    """Refuse a place for a map before any work is done."""
    if path.suffix.lower() not in FORMATS:
        raise CoreInferError(f"cannot draw a map as {path.name!r}: end the name in {' or '.join(FORMATS)}")
    check_file(path, REMEDY)


def draw_map(centroids: Floats, sizes: NDArray[Any], terms: list[list[str]], path: Path, title: str) -> None:
    """Centroids (K, d), passages (K,), each cluster's terms, best first -> a PNG or SVG, the same bytes each time."""
    check_map(path)
    import matplotlib.style

    drawn, kind = io.BytesIO(), path.suffix.lower()
    with matplotlib.style.context(["default", {"svg.hashsalt": "coreinfer"}]):
        figure = _titled(lay_out(centroids, sizes), sizes, terms, title)
        figure.savefig(drawn, format=kind[1:], metadata=FORMATS[kind])
    with writing(path, REMEDY):
        path.write_bytes(drawn.getvalue())


def _titled(layout: MapLayout, sizes: NDArray[Any], terms: list[list[str]], title: str) -> "Figure":
    """The map with a title, and what it says of itself."""
    figure, labelled = map_figure(layout, terms, SCREEN)
    write = _Writer(figure.axes[0], SCREEN)
    shown = f"{labelled:,} labelled"
    write(LOW[0], SHEET[1] - 50, shortened(title, 90), 27, INK, weight="bold")
    write(LOW[0], 24, f"{counted(len(sizes), 'cluster')}, {counted(int(sum(sizes)), 'passage')}; {shown}", 15)
    write(HIGH[0], 24, "near: alike in meaning; area: passages; colour: neighbourhood", 15, ha="right")
    return figure


def map_figure(layout: MapLayout, terms: list[list[str]], look: Look) -> tuple["Figure", int]:
    """Circles and labels alone; and how many have a label."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((SHEET[0] / look.dpi, SHEET[1] / look.dpi), dpi=look.dpi, facecolor=look.paper)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SHEET[0]), ylim=(0, SHEET[1]))
    axes.set_axis_off()
    hues = [look.hues[group] for group in layout.groups]
    _circles(axes, layout, hues, look)
    return figure, _labels(axes, layout, terms, hues, look)


class _Writer:
    """Text by its letter height in the sheet's pixels."""

    def __init__(self, axes: "Axes", look: Look) -> None:
        self.axes, self.look = axes, look

    def __call__(self, x: float, y: float, text: str, size: float, colour: str = GREY, **more: Any) -> Any:
        return self.axes.text(x, y, text, size=size * 72 / self.look.dpi, color=colour, parse_math=False, **more)


def _circles(axes: "Axes", layout: MapLayout, hues: list[str], look: Look) -> None:
    from matplotlib.patches import Circle

    for grown, pale in ((28, 0.87), (0, 0.0)):  # a pale shore first, then the circles
        for (x, y), r, hue in zip(layout.spots, layout.radii, hues, strict=True):
            edge, width = "none" if grown else _mix(hue, INK, 0.25), 80 / look.dpi
            axes.add_patch(Circle((x, y), r + grown, facecolor=_mix(hue, look.paper, pale), edgecolor=edge, lw=width))


def _labels(axes: "Axes", layout: MapLayout, terms: list[list[str]], hues: list[str], look: Look) -> int:
    """Each cluster's first terms, where there is room; how many have any."""
    write = _Writer(axes, look)
    names = []
    for row, hue in zip(terms, hues, strict=True):
        first, *rest = [shortened(term, 22) for term in row if term.strip()][:3] or [""]
        head = write(0, 0, first, look.big, _mix(hue, INK, 0.72), weight="bold")
        names.append((head, write(0, 0, ", ".join(rest), look.small)))
    renderer = axes.figure.canvas.get_renderer()  # type: ignore[attr-defined]
    wide = np.array([[line.get_window_extent(renderer).width for line in label] for label in names])
    wide[[not label[0].get_text() for label in names]] = 0
    high = np.array([(look.big + look.small * bool(below.get_text())) * LEADING for _, below in names])
    low = np.full(len(names), look.big * LEADING)  # where both lines do not fit, the first may
    boxes = np.stack([np.column_stack([wide.max(1), high]), np.column_stack([wide[:, 0], low])], 1)
    corners = place_labels(np.column_stack([layout.spots, layout.radii]), boxes)
    for label, room, corner, (x, _) in zip(names, boxes, corners, layout.spots, strict=True):
        for line, drop in zip(label, (look.big * 0.95, look.big * LEADING + look.small * 0.93), strict=True):
            if corner is None or (corner[2] == 1 and line is label[1]):
                line.remove()
                continue
            w, h = room[corner[2]]
            part = 0.0 if corner[0] >= x else 1.0 if corner[0] + w <= x else 0.5
            line.set(
                position=(corner[0] + w * part, corner[1] + h - drop), ha=("left", "center", "right")[int(part * 2)]
            )
    return len(corners) - corners.count(None)


def _mix(colour: str, other: str, part: float) -> str:
    """``colour`` with ``part`` of ``other`` in it, all as #rrggbb."""
    a, b = (np.array(list(bytes.fromhex(code[1:]))) for code in (colour, other))
    return "#" + bytes(np.rint(a + (b - a) * part).astype(np.uint8)).hex()
