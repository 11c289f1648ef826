"""Where the clusters lie on a map: what is close in meaning is close on the sheet. PURE: arrays in, arrays out.

The one place that decides positions, whoever draws them: ``picture`` as a file, ``page`` in a browser.

K clusters, d embedding dimensions. Positions and lengths are pixels, y upwards, on a sheet of ``SHEET`` pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
SHEET = (1600, 1100)
LOW, HIGH = np.array([28.0, 60.0]), np.array([1572.0, 1020.0])  # corners of the frame that labels stay in
MIDDLE, MARGIN = (LOW + HIGH) / 2, np.array([60.0, 40.0])  # circles keep further inside: their labels need room
AIR = np.array([7.0, 0.0])  # between labels
GROUPS = 10  # neighbourhoods at most


@dataclass(frozen=True, eq=False)
class MapLayout:
    """Circles: ``spots`` (K, 2), ``radii`` (K,), and the neighbourhood of each, 0 to ``GROUPS`` - 1, as ``groups``."""

    spots: NDArray[np.float64]
    radii: NDArray[np.float64]
    groups: NDArray[np.int64]


def lay_out(centroids: Floats, sizes: NDArray[Any]) -> MapLayout:
    """Centroids (K, d) and passages (K,) -> the same layout each time: a second at K = 128."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # one thread adds in one order: the map does not depend on the machine's load
        radii = radii_of(sizes)
        spots = spread(project(centroids), radii)
        return MapLayout(spots, radii, groups_of(spots))


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


def radii_of(sizes: NDArray[Any]) -> NDArray[np.float64]:
    """Areas in proportion to passages (K,): together 7 % of the sheet, unless the largest would be too big."""
    roots = np.sqrt(np.asarray(sizes, np.float64))
    scale = np.sqrt(0.07 * SHEET[0] * SHEET[1] / np.pi) / max(np.linalg.norm(roots), 1.0)
    return np.asarray(np.maximum(roots * min(scale, 70 / max(roots.max(), 1.0)), 2.5), np.float64)


def groups_of(spots: Floats) -> NDArray[np.int64]:
    """Neighbourhoods by k-means, (K,): numbered, and so coloured, in their order around the middle of the sheet."""
    from sklearn.cluster import KMeans

    found = KMeans(min(GROUPS, 1 + len(np.unique(spots, axis=0)) // 3), n_init=10, random_state=0).fit(spots)
    across, up = (found.cluster_centers_ - MIDDLE).T
    rank = np.argsort(np.argsort(np.arctan2(up, across)))
    return np.asarray((rank[found.labels_] * GROUPS // len(rank) + 6) % GROUPS, np.int64)
