"""The first threshold of a build: by the texts that it held out, or by the corpus itself where those are too few.

Of three held-out texts, the weakest match is chance: every second prompt of the corpus's own topics may lie below it,
and fall back for nothing. So a small corpus's passages are looked at as if each were new: how near does its beginning,
no longer than a short prompt, come to the nearest cluster without it? Half of the weakest is a threshold that hardly
any prompt of these topics misses. It is a guess on the safe side, and is said to be one.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreinfer.calibrated import FEW, GUESS
from coreinfer.embedder import Embedder
from coreinfer.match import make_index
from pipeline.calibrate import WEAKEST, threshold
from pipeline.data import Clustering
from pipeline.embed import open_vectors
from pipeline.passages import texts_at

PREFIX = 250  # letters of a held-out passage that stand for a prompt
SHORT = 60  # letters of a passage that stand for a short one
MOST = 512  # passages that are looked at, evenly over all

MEASURED = f"quantile {WEAKEST} of held-out similarities (first {PREFIX} letters)"
GUESSED = (
    f"{GUESS}: half of the weakest similarity of the corpus's own passages (first {SHORT} letters) to clusters "
    f"without them, for fewer than {FEW} texts were held out"
)


def first_threshold(
    embedder: Embedder, held: list[str], made: Clustering, passages: Path, vectors: Path, kept: NDArray[np.int64]
) -> tuple[float, str]:
    """The threshold and the rule that gave it. ``held``: the held-out texts; ``kept`` (n,): the passages that ``made``
    clusters, by their index in the files of ``passages`` and of their ``vectors``.
    """
    if len(held) >= FEW:
        prefixes = embedder.embed([text[:PREFIX] for text in held])
        return threshold(make_index(made.centroids).search(prefixes, 1)[0][:, 0]), MEASURED
    some = np.unique(np.linspace(0, len(kept) - 1, min(MOST, len(kept))).round().astype(np.int64))
    short = embedder.embed([text[:SHORT] for text in texts_at(passages, kept[some])])
    return cautious(as_if_new(made, some, open_vectors(vectors)[kept[some]], short)), GUESSED


def as_if_new(
    made: Clustering, some: NDArray[np.int64], vectors: NDArray[np.float32], short: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The similarity of ``short``, the beginnings of ``some`` passages (m, d), to the nearest cluster, from whose
    centroid the passage itself, one of ``vectors`` (m, d), is taken out; -1 where that leaves nothing: (m,).
    """
    labels = made.labels[some]
    weights = np.bincount(made.labels, made.similarities, len(made.centroids))  # the lengths of the clusters' sums
    rest = weights[labels, None] * made.centroids[labels] - vectors
    own = (short * rest).sum(1) / np.maximum(np.linalg.norm(rest, axis=1), 1e-9)
    near = short @ made.centroids.T
    near[np.arange(len(some)), labels] = np.where(made.sizes[labels] > 1, own, -1)
    return np.asarray(near.max(1), np.float32)


def cautious(similarities: NDArray[np.float32]) -> float:
    """Half of the weakest; all of it where that is below 0."""
    weakest = float(similarities.min())
    return round(min(weakest, weakest / 2), 4)
