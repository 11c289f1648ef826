"""The map: the same bytes each time, labels apart from one another and on the sheet, and no input that breaks it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from coreinfer import CoreInferError
from coreinfer.map_layout import HIGH, LOW, SHEET, lay_out, place_labels, project, spread
from coreinfer.picture import _titled, draw_map

Arrays = tuple[NDArray[np.float32], NDArray[np.int64], list[list[str]]]
X, Y = (st.floats(float(LOW[i]), float(HIGH[i])) for i in (0, 1))
CIRCLES = st.lists(st.tuples(X, Y, st.floats(2.5, 70)), min_size=1, max_size=40)


def clusters(count: int, dimension: int = 16) -> Arrays:
    """Unit centroids around a few topics, sizes, terms."""
    rng = np.random.default_rng(count)
    topics = rng.normal(size=(5, dimension))
    raw = topics[rng.integers(0, 5, count)] + 0.4 * rng.normal(size=(count, dimension))
    unit = np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True), np.float32)
    return unit, rng.integers(1, 3000, count), [[f"term{i}", f"second {i}", "third"] for i in range(count)]


def drawn(path: Path, arrays: Arrays) -> bytes:
    draw_map(*arrays, path, "A title")
    return path.read_bytes()


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.PNG", b"\x89PNG")])
def test_the_same_bytes_each_time(name: str, start: bytes, tmp_path: Path) -> None:
    first = drawn(tmp_path / name, clusters(40))
    assert first.startswith(start)
    assert drawn(tmp_path / name, clusters(40)) == first
    assert drawn(tmp_path / name, clusters(41)) != first


@pytest.mark.parametrize("name", ["map.pdf", "map", "map.jpg"])
def test_other_kinds_of_file_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CoreInferError, match=r"\.png or \.svg"):
        draw_map(*clusters(3), tmp_path / name, "A title")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("folder.png", "Is a directory"),
        ("nowhere/map.png", "there is no folder .*nowhere"),
        ("file/map.png", "file is a file, no folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_drawing(
    place: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr("coreinfer.picture._titled", lambda *_: pytest.fail("it draws"))
    with pytest.raises(CoreInferError, match=f"cannot write .*{place}: .*{said}; name a file that you may write"):
        draw_map(*clusters(3), tmp_path / place, "A title")


def texts_on(arrays: Arrays, title: str = "A title") -> list[tuple[str, NDArray[np.float64]]]:
    """Each text on the sheet and the corners (4,) of what matplotlib draws of it."""
    centroids, sizes, terms = arrays
    figure = _titled(lay_out(centroids, sizes), sizes, terms, title)
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    return [(text.get_text(), np.array(text.get_window_extent(renderer).extents)) for text in texts]


@pytest.mark.parametrize("count", [1, 2, 3, 9, 10, 11, 200])
def test_any_number_of_clusters(count: int) -> None:
    placed = texts_on(clusters(count))
    corners = np.array([box for _, box in placed])
    assert (corners[:, :2] >= 0).all()
    assert (corners[:, 2:] <= SHEET).all()
    for i, a in enumerate(corners):
        for b in corners[i + 1 :]:
            shared = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
            assert shared.min() <= 2, "texts overlap by more than the pixel or two of a letter's edge"
    labelled = sum(text.startswith("term") for text, _ in placed)
    assert labelled == count if count < 10 else labelled >= 0.3 * count
    assert any(f"{labelled:,} labelled" in text for text, _ in placed)


@pytest.mark.parametrize("count", [2, 12, 200])
def test_identical_centroids(count: int) -> None:
    one = np.tile(clusters(1)[0], (count, 1))
    assert np.isfinite(project(one)).all()
    spots = spread(project(one), np.full(count, 5.0))
    far = np.linalg.norm(spots[:, None] - spots[None], axis=-1) + 1e6 * np.eye(count)
    assert far.min() > 10, "circles on one spot part"
    texts_on((one, *clusters(count)[1:]))


def test_one_dimension_and_equal_sizes() -> None:
    texts_on((np.array([[1.0], [-1.0], [1.0]], np.float32), np.ones(3, np.int64), [["a"], ["b"], ["c"]]))


TERMS = [
    [],
    [""],
    [" "],
    ["$x_1$", "a_b", r"\frac"],
    ["$"],
    ["naïve", "日本語", "😀"],
    ["<b>&"],
    ["line\nbreak"],
    ["w" * 300],
]


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.filterwarnings("ignore:Glyph")  # the font that ships with matplotlib has no Chinese: a box is drawn
def test_any_terms(kind: str, tmp_path: Path) -> None:
    arrays = (*clusters(len(TERMS))[:2], TERMS)
    assert drawn(tmp_path / f"map.{kind}", arrays)
    shown = [text for text, _ in texts_on(arrays, "50 % of $x$ & <y>_" + "z" * 200)]
    assert {"$x_1$", "a_b, \\frac", "$", "naïve", "<b>&", "line break"} <= set(shown)
    assert all(len(text) < 100 for text in shown)


@given(CIRCLES, st.data())
@settings(deadline=None)
def test_labels_do_not_touch_and_stay_in_the_frame(
    drawn: list[tuple[float, float, float]], data: st.DataObject
) -> None:
    circles = np.array(drawn)
    size = st.tuples(st.sampled_from([0.0, 20.0, 90.0, 250.0, 2000.0]), st.floats(5, 60))
    boxes = np.array([data.draw(st.tuples(size, size)) for _ in drawn])
    kept: list[tuple[float, float, float, float]] = []
    for circle, sizes, corner in zip(circles, boxes, place_labels(circles, boxes), strict=True):
        if corner is None:
            continue
        (x, y, which), (w, h) = corner, sizes[corner[2]]
        assert w > 0
        assert LOW[0] <= x <= x + w <= HIGH[0] + 1e-6
        assert LOW[1] <= y <= y + h <= HIGH[1] + 1e-6
        assert which == 0 or sizes[1, 0] > 0
        away = np.hypot(max(x - circle[0], 0, circle[0] - x - w), max(y - circle[1], 0, circle[1] - y - h))
        assert circle[2] <= away + 1e-6 <= 1.5 * circle[2] + 10, "beside its own circle"
        for a, b, r in circles:
            assert np.hypot(max(x - a, 0, a - x - w), max(y - b, 0, b - y - h)) >= r - 1e-6
        for a, b, c, d in kept:
            assert x >= c - 1e-6 or a >= x + w - 1e-6 or y >= d - 1e-6 or b >= y + h - 1e-6
        kept.append((x, y, x + w, y + h))


@given(st.lists(st.tuples(X, Y, st.floats(2.5, 30)), min_size=1, max_size=25))
@settings(deadline=None, max_examples=40)
def test_circles_part_where_there_is_room(drawn: list[tuple[float, float, float]]) -> None:
    given_ = np.array(drawn)
    spots, radii = spread(given_[:, :2], given_[:, 2]), given_[:, 2]
    far = np.linalg.norm(spots[:, None] - spots[None], axis=-1) - radii[:, None] - radii
    assert far[~np.eye(len(radii), dtype=bool)].min(initial=1) > -1
    assert (spots - radii[:, None] >= LOW).all()
    assert (spots + radii[:, None] <= HIGH).all()


def test_the_sheet_has_its_size(tmp_path: Path) -> None:
    from matplotlib.image import imread

    draw_map(*clusters(4), tmp_path / "a.png", "A title")
    assert imread(tmp_path / "a.png").shape[:2] == SHEET[::-1]
