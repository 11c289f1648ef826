"""The approximate search against brute force: what it finds is exact, and it finds nearly all."""

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer import match
from coreinfer.approximate import Approximate
from coreinfer.embedder import unit
from coreinfer.match import make_index, nearest
from pipeline.cluster import assign, how, recall
from pipeline.scale.synthetic import Synthetic


@given(st.integers(1, 300), st.integers(1, 12), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_found_is_exact_and_in_order(clusters: int, m: int, seed: int) -> None:
    """With one probe and lists of a few centroids: too few are in the list, and all are compared."""
    rng = np.random.default_rng(seed)
    centroids, vectors = (unit(rng.normal(size=(n, 8)).astype(np.float32)) for n in (clusters, 9))
    m = min(m, clusters)
    similarities, ids = Approximate(centroids, probes=1).search(vectors, m)
    assert ids.shape == similarities.shape == (9, m)
    assert ((ids >= 0) & (ids < clusters)).all()
    assert all(len(set(row)) == m for row in ids.tolist())
    assert (np.diff(similarities, axis=1) <= 1e-6).all()
    truth = vectors @ centroids.T
    assert similarities == pytest.approx(np.take_along_axis(truth, ids, 1), abs=1e-5)


@given(st.integers(1, 200), st.integers(1, 10), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_with_all_lists_it_is_brute_force(clusters: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centroids, vectors = (unit(rng.normal(size=(n, 8)).astype(np.float32)) for n in (clusters, 9))
    similarities, _ = Approximate(centroids, probes=clusters).search(vectors, min(m, clusters))
    truth = -np.sort(-(vectors @ centroids.T), axis=1)[:, : min(m, clusters)]
    assert similarities == pytest.approx(truth, abs=1e-5)


@pytest.fixture(autouse=True)
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match, "EXACT", 4096)


@pytest.fixture(scope="module")
def made() -> Synthetic:
    return Synthetic(6000, 128)


def test_nearly_all_nearest_centroids_are_found(made: Synthetic) -> None:
    queries = made.block(0, 1000)
    truth = queries @ made.topics.T
    index = make_index(made.topics)
    assert isinstance(index, Approximate)
    found = np.array([m.cluster for m in nearest(index, queries, 4)])
    assert (found == truth.argmax(1)).mean() > 0.99
    lost = truth.max(1) - truth[np.arange(len(truth)), found]
    assert lost.mean() < 0.002
    sixteen = np.argsort(-truth, axis=1)[:, :16]
    mine = index.search(queries, 16)[1]
    assert np.mean([len(set(a) & set(b)) for a, b in zip(sixteen.tolist(), mine.tolist(), strict=True)]) > 15.5


def test_any_number_of_threads_finds_the_same(made: Synthetic) -> None:
    found = list[bytes]()
    for threads in (1, 3):
        with threadpoolctl.threadpool_limits(threads):
            found += [Approximate(made.topics).search(made.block(0, 500), 3)[1].tobytes()]
    assert found[0] == found[1]


def test_few_centroids_are_all_compared(made: Synthetic) -> None:
    few = made.topics[: match.EXACT]
    assert type(make_index(few)).__name__ == type(make_index(made.topics, exact=True)).__name__ == "IndexFlatIP"
    all_of_them = nearest(make_index(made.topics), made.block(0, 2), len(made.topics))
    assert [len(set(m.clusters.tolist())) for m in all_of_them] == [len(made.topics)] * 2


def test_an_artifact_says_how_its_clusters_were_found(made: Synthetic, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, rows = made.block(0, 3000), np.arange(0, 3000, 2)
    exact = assign(vectors, rows, vectors[:200])
    assert how(vectors, rows, len(rows), [200], exact) == {
        "passages": 1500, "trained_on": 1500, "finest": 200, "levels": 1, "search": "exact"
    }  # fmt: skip
    assert recall(vectors, rows, exact) == 1
    monkeypatch.setattr(match, "EXACT", 100)
    monkeypatch.setattr("pipeline.cluster.EXACT", 100)
    said = how(vectors, rows, len(rows), [200], assign(vectors, rows, vectors[:200]))
    assert (said["search"], 0.9 < said["recall"] <= 1) == ("approximate", True)


def test_a_prompt_goes_where_a_passage_in_its_place_went(made: Synthetic) -> None:
    queries = made.block(5, 64)
    index = make_index(made.topics)
    together = index.search(queries, 1)[1][:, 0].tolist()
    assert together == [index.search(query[None], 1)[1].item() for query in queries]
