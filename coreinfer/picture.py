"""Clusters as a map: what lies close in meaning lies close on paper. One image file from arrays; knows no artifact.

K clusters, d embedding dimensions. Positions and lengths are pixels, y upwards, on a sheet of ``SHEET`` pixels.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.places import check_file, writing
from coreinfer.wording import counted, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]
SHEET, DPI = (1600, 1100), 100
LOW, HIGH = np.array([28.0, 60.0]), np.array([1572.0, 1020.0])  # corners of the frame that labels stay in
MIDDLE, MARGIN = (LOW + HIGH) / 2, np.array([60.0, 40.0])  # circles keep further inside: their labels need room
AIR = np.array([7.0, 0.0])  # between labels
PAPER, INK, GREY = "#fcfbf8", "#2b2f36", "#5d626c"
HUES = ("#d98880", "#dba472", "#cdb75f", "#9bb96f", "#6cb394", "#63b0bd", "#74a0cf", "#9494d1", "#b88cc6", "#d089a9")
BIG, SMALL, LEADING = 15.0, 12.0, 1.22  # letter heights of a label's two lines; line height over letter height
REMEDY = "name a file that you may write"
FORMATS = {".png": {"Software": None}, ".svg": {"Date": None}}


def project(centroids: Floats) -> NDArray[np.float64]:
    """(K, d) -> positions (K, 2): t-SNE from 10 distinct clusters on, principal axes for fewer; fills the frame."""
    count, flat = len(centroids), np.zeros((len(centroids), 2))
    if centroids.shape[1] > 1 and len(np.unique(centroids, axis=0)) >= 10:
        from sklearn.manifold import TSNE

        near = min(30.0, (count - 1) / 3)
        flat += TSNE(metric="cosine", init="pca", perplexity=near, random_state=0).fit_transform(centroids)
        flat = (_level(flat) + flat / np.abs(flat).max(0)) / 2  # halfway to even use of the sheet: labels need room
    else:
        centred = np.asarray(centroids, np.float64) - np.mean(centroids, 0)
        axes = np.linalg.svd(centred, full_matrices=False)[2][:2]
        flat[:, : len(axes)] = centred @ axes.T
    flat -= (flat.min(0) + flat.max(0)) / 2
    half = np.abs(flat).max(0)
    reach = ((HIGH - LOW) / 2 - MARGIN) * min(1.0, 0.4 + count / 25)
    return np.asarray(MIDDLE + flat / np.where(half > 1e-6, half, np.inf) * reach)


def _level(flat: Floats) -> NDArray[np.float64]:
    """Coordinates (K, 2) -> their ranks from -1 to 1 along each axis; equal ones stay equal."""
    columns = [np.unique(column, return_inverse=True)[1] for column in flat.T]
    return np.column_stack([2 * column / max(column.max(), 1) - 1 for column in columns])


def spread(spots: Floats, radii: Floats, gap: float = 6.0) -> NDArray[np.float64]:
    """Positions (K, 2) nudged until circles (K,) lie ``gap`` apart inside the margins, as far as there is room."""
    others, room = 1 - np.eye(len(radii)), MARGIN / 2 + radii[:, None]
    angle = np.arange(len(radii)) * 2.399963  # the golden angle: circles on one spot part in different directions
    spots = np.clip(spots, LOW + room, HIGH - room) + np.stack([np.cos(angle), np.sin(angle)], 1) * 1e-3
    for _ in range(200):
        away = spots[:, None] - spots[None]
        far = np.linalg.norm(away, axis=-1)
        lack = np.maximum(radii[:, None] + radii + gap - far, 0) * others / np.maximum(far, 1e-9)
        if not lack.any():
            break
        crowd = np.sqrt(np.maximum((lack > 0).sum(1), 1))[:, None]  # in a crowd smaller steps, or all fly to the edges
        spots = np.clip(spots + (away * lack[..., None]).sum(1) * 0.45 / crowd, LOW + room, HIGH - room)
    return np.asarray(spots, np.float64)


def place_labels(circles: Floats, boxes: Floats) -> list[tuple[float, float, int] | None]:
    """Circles (K, 3: x, y, r), label sizes (K, S, 2: w, h) -> each label's lower left corner and the size that fits.

    Largest circle first, and of a label's S sizes the first that fits; None where none does. A label lies beside its
    circle, inside the frame, on no circle and on no other label; one without a width is not placed.
    """
    found: list[tuple[float, float, int] | None] = [None] * len(circles)
    taken = np.empty((0, 4))
    for i in np.argsort(-circles[:, 2], kind="stable"):
        for size, low, high in _places(circles[i], boxes[i]):
            on_circle = np.linalg.norm(np.clip(circles[:, :2], low, high) - circles[:, :2], axis=1) < circles[:, 2]
            on_label = ((taken[:, :2] < high + AIR) & (low - AIR < taken[:, 2:])).all(1)
            if (low >= LOW).all() and (high <= HIGH).all() and not on_circle.any() and not on_label.any():
                found[i], taken = (float(low[0]), float(low[1]), size), np.vstack([taken, [*low, *high]])
                break
    return found


def _places(circle: Floats, sizes: Floats) -> Iterator[tuple[int, Floats, Floats]]:
    """Where a label may go, best first: (which of its sizes, lower left corner, upper right corner)."""
    x, y, r = circle
    gap, slant = r + 5, r * 0.75 + 3
    for size, (w, h) in enumerate(sizes):
        tries = [(gap, -h / 2), (-gap - w, -h / 2), (-w / 2, -gap - h), (-w / 2, gap)]
        tries += [(a, b) for b in (slant, -slant - h) for a in (slant, -slant - w)]
        tries += [(-w * part, b) for b in (gap, -gap - h) for part in (0.25, 0.75)]
        for low in np.array([x, y]) + tries if w > 0 else ():
            yield size, low, low + np.array([w, h])


def check_map(path: Path) -> None:
    """Refuse a place for a map before any work is done."""
    if path.suffix.lower() not in FORMATS:
        raise CoreInferError(f"cannot draw a map as {path.name!r}: end the name in {' or '.join(FORMATS)}")
    check_file(path, REMEDY)


def draw_map(centroids: Floats, sizes: NDArray[Any], terms: list[list[str]], path: Path, title: str) -> None:
    """Centroids (K, d), passages (K,), each cluster's terms, best first -> a PNG or SVG, the same bytes each time."""
    check_map(path)
    import matplotlib.style
    from threadpoolctl import threadpool_limits

    drawn, kind = (
        io.BytesIO(),
        path.suffix.lower(),
    )  # one thread adds in one order, so the picture does not depend on the machine's load
    with threadpool_limits(1), matplotlib.style.context(["default", {"svg.hashsalt": "coreinfer"}]):
        _figure(centroids, sizes, terms, title).savefig(drawn, format=kind[1:], metadata=FORMATS[kind])
    with writing(path, REMEDY):
        path.write_bytes(drawn.getvalue())


def _figure(centroids: Floats, sizes: NDArray[Any], terms: list[list[str]], title: str) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
    from matplotlib.text import Text

    figure = Figure((SHEET[0] / DPI, SHEET[1] / DPI), dpi=DPI, facecolor=PAPER)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, SHEET[0]), ylim=(0, SHEET[1]))
    axes.set_axis_off()

    def write(x: float, y: float, text: str, size: float, colour: str = GREY, **more: Any) -> Text:
        return axes.text(x, y, text, size=size * 72 / DPI, color=colour, parse_math=False, **more)

    radii = _radii(sizes)
    spots = spread(project(centroids), radii)
    hues = _hues(spots)
    for grown, pale in ((28, 0.87), (0, 0.0)):  # a pale shore first, then the circles
        for (x, y), r, hue in zip(spots, radii, hues, strict=True):
            edge = "none" if grown else _mix(hue, INK, 0.25)
            axes.add_patch(Circle((x, y), r + grown, facecolor=_mix(hue, PAPER, pale), edgecolor=edge, lw=0.8))
    names = []
    for row, hue in zip(terms, hues, strict=True):
        first, *rest = [shortened(term, 22) for term in row if term.strip()][:3] or [""]
        head = write(0, 0, first, BIG, _mix(hue, INK, 0.72), weight="bold")
        names.append((head, write(0, 0, ", ".join(rest), SMALL)))
    wide = np.array([[line.get_window_extent(renderer).width for line in label] for label in names])
    wide[[not label[0].get_text() for label in names]] = 0
    high = np.array([(BIG + SMALL * bool(below.get_text())) * LEADING for _, below in names])
    low = np.full(len(names), BIG * LEADING)  # where both lines do not fit, the first may
    boxes = np.stack([np.column_stack([wide.max(1), high]), np.column_stack([wide[:, 0], low])], 1)
    corners = place_labels(np.column_stack([spots, radii]), boxes)
    for label, room, corner, (x, _) in zip(names, boxes, corners, spots, strict=True):
        for line, drop in zip(label, (BIG * 0.95, BIG * LEADING + SMALL * 0.93), strict=True):
            if corner is None or (corner[2] == 1 and line is label[1]):
                line.remove()
                continue
            w, h = room[corner[2]]
            part = 0.0 if corner[0] >= x else 1.0 if corner[0] + w <= x else 0.5
            line.set(
                position=(corner[0] + w * part, corner[1] + h - drop), ha=("left", "center", "right")[int(part * 2)]
            )
    write(LOW[0], SHEET[1] - 50, shortened(title, 90), 27, INK, weight="bold")
    shown = f"{len(corners) - corners.count(None):,} labelled"
    write(LOW[0], 24, f"{counted(len(sizes), 'cluster')}, {counted(int(sum(sizes)), 'passage')}; {shown}", 15)
    write(HIGH[0], 24, "near: alike in meaning; area: passages; colour: neighbourhood", 15, ha="right")
    return figure


def _radii(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Areas in proportion to passages (K,): together 7 % of the sheet, unless the largest would be too big."""
    roots = np.sqrt(np.asarray(sizes, np.float64))
    scale = np.sqrt(0.07 * SHEET[0] * SHEET[1] / np.pi) / max(np.linalg.norm(roots), 1.0)
    return np.asarray(np.maximum(roots * min(scale, 70 / max(roots.max(), 1.0)), 2.5), np.float64)


def _hues(spots: Floats) -> list[str]:
    """A colour each: neighbourhoods by k-means, the hues in their order around the middle of the sheet."""
    from sklearn.cluster import KMeans

    found = KMeans(min(len(HUES), 1 + len(np.unique(spots, axis=0)) // 3), n_init=10, random_state=0).fit(spots)
    across, up = (found.cluster_centers_ - MIDDLE).T
    rank = np.argsort(np.argsort(np.arctan2(up, across)))
    return [HUES[(rank[group] * len(HUES) // len(rank) + 6) % len(HUES)] for group in found.labels_]


def _mix(colour: str, other: str, part: float) -> str:
    """``colour`` with ``part`` of ``other`` in it, all as #rrggbb."""
    a, b = (np.array(list(bytes.fromhex(code[1:]))) for code in (colour, other))
    return "#" + bytes(np.rint(a + (b - a) * part).astype(np.uint8)).hex()
