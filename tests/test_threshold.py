"""A build's first threshold: measured by enough held-out texts, else a guess on which the corpus's own topics match."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from one_pass import embed_passages

from coreinfer.calibrated import FEW
from coreinfer.embedder import Embedder, unit
from coreinfer.match import make_index
from coreinfer.paths import DEMO_PASSAGES
from pipeline.calibrate import numbers, threshold
from pipeline.cluster import assign, kmeans
from pipeline.data import Clustering
from pipeline.passages import Passage, write_passages
from pipeline.threshold import GUESSED, MEASURED, SHORT, as_if_new, cautious, first_threshold

Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(dtype="float32")


def around(labels: NDArray[np.int64]) -> tuple[Clustering, Floats]:
    """Vectors (n, d) in clusters, whose centroids are exactly their means'."""
    rng = np.random.default_rng(0)
    vectors = unit((rng.normal(size=(labels.max() + 1, 8))[labels] + rng.normal(size=(len(labels), 8))).astype("f4"))
    centroids = unit(np.stack([vectors[labels == c].sum(0) for c in range(labels.max() + 1)]))
    return Clustering(centroids, labels, (vectors * centroids[labels]).sum(1)), vectors


def test_as_if_new_is_a_clustering_without_the_text() -> None:
    made, vectors = around(np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3]))
    short = unit(np.random.default_rng(1).normal(size=vectors.shape).astype("f4"))
    some = np.array([0, 3, 5, 8, 9])
    found = as_if_new(made, some, vectors[some], short[some])
    for i, near in zip(some.tolist(), found.tolist(), strict=True):
        others = np.arange(len(vectors)) != i
        left = [vectors[others & (made.labels == c)].sum(0) for c in range(4) if (others & (made.labels == c)).any()]
        assert near == pytest.approx(float((unit(np.stack(left)) @ short[i]).max()), abs=1e-5)


def test_a_text_that_is_all_there_is_matches_everything() -> None:
    made, vectors = around(np.array([0]))
    assert as_if_new(made, np.array([0]), vectors, vectors).tolist() == [-1]
    assert cautious(np.array([-1], np.float32)) == -1


def test_half_of_the_weakest() -> None:
    assert cautious(np.array([0.9, 0.2, 0.5], np.float32)) == 0.1
    assert cautious(np.array([0.9, -0.2], np.float32)) == -0.2


def topics(letters: int) -> list[list[str]]:
    """The ten passages of each topic of the demo, cut short."""
    found: dict[str, list[str]] = {}
    with DEMO_PASSAGES.open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found.setdefault(row["topic"], []).append(row["text"][:letters])
    return list(found.values())


def clustered(texts: list[str], embedder: Embedder, place: Path) -> tuple[Clustering, Path, Path]:
    passages, vectors = place / "passages.parquet", place / "vectors.npy"
    write_passages((Passage(i, text, f"{i}") for i, text in enumerate(texts)), passages)
    embed_passages(passages, len(texts), embedder, vectors)
    rows, found = np.arange(len(texts)), np.load(vectors)
    return assign(found, rows, kmeans(found, rows, numbers(len(texts))[-1], 0)), passages, vectors


@pytest.mark.parametrize(("some", "each"), [(1, 6), (4, 6), (8, 6)])
def test_a_small_corpus_knows_its_own_topics(some: int, each: int, embedder: Embedder, tmp_path: Path) -> None:
    """Texts that it has not seen, on its topics: one held-out text's threshold throws most of them away."""
    chosen = topics(300)[1::3][:some]
    made, passages, vectors = clustered([t for topic in chosen for t in topic[:each]], embedder, tmp_path)
    kept = np.arange(some * each)
    found, rule = first_threshold(embedder, [topics(300)[1][9]], made, passages, vectors, kept)
    unseen = embedder.embed([t[:SHORT] for topic in chosen for t in topic[each:]])
    near = make_index(made.centroids).search(unseen, 1)[0][:, 0]
    before = threshold(make_index(made.centroids).search(embedder.embed([topics(300)[1][9]]), 1)[0][:, 0])
    assert rule == GUESSED
    assert (near < found).mean() == 0 < (near < before).mean()
    assert (found, rule) == first_threshold(embedder, [], made, passages, vectors, kept)


def test_enough_held_out_texts_decide_alone(embedder: Embedder, tmp_path: Path) -> None:
    texts = [t for topic in topics(300)[:4] for t in topic]
    made, passages, vectors = clustered(texts[::2], embedder, tmp_path)
    for count, rule in ((FEW - 1, GUESSED), (FEW, MEASURED)):
        held = texts[1::2][:count]
        found, said = first_threshold(embedder, held, made, passages, vectors, np.arange(len(texts[::2])))
        near = make_index(made.centroids).search(embedder.embed([t[:250] for t in held]), 1)[0][:, 0]
        assert said == rule
        assert (found == threshold(near)) == (rule == MEASURED)
