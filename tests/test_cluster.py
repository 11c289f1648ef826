"""k-means, assignment and the candidates against brute force."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from pipeline import kmeans as training
from pipeline.cluster import assign, candidates, check_clusters, coarser, kmeans
from pipeline.data import QUANTILES, Clustering

Vectors = NDArray[np.float32]


def directions(count: int, dimension: int = 16, seed: int = 0) -> Vectors:
    """Random unit vectors (n, d)"""
    return unit(np.random.default_rng(seed).normal(size=(count, dimension)).astype(np.float32))


def bunches(each: int, count: int, dimension: int = 16) -> Vectors:
    """``count`` tight groups of ``each`` unit vectors, one group after another."""
    noise = 0.05 * np.random.default_rng(1).normal(size=(each * count, dimension))
    return unit((np.repeat(directions(count, dimension), each, axis=0) + noise).astype(np.float32))


def every(vectors: Vectors) -> NDArray[np.int64]:
    return np.arange(len(vectors))


@given(st.integers(1, 60), st.integers(0, 5), st.data())
@settings(max_examples=40, deadline=None)
def test_one_seed_makes_one_set_of_unit_centroids(count: int, seed: int, data: st.DataObject) -> None:
    vectors, k = directions(count, 8, seed), data.draw(st.integers(1, count))
    centroids = kmeans(vectors, every(vectors), k, seed)
    assert centroids.shape == (k, 8)
    assert centroids.dtype == np.float32
    assert np.linalg.norm(centroids, axis=1) == pytest.approx(1, abs=1e-6)
    assert centroids.tobytes() == kmeans(vectors, every(vectors), k, seed).tobytes()


def test_larger_runs_repeat_too_and_seeds_differ() -> None:
    vectors = directions(3000)
    first, again, other = (kmeans(vectors, every(vectors), 24, seed) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != other.tobytes()


def test_clear_groups_are_found() -> None:
    vectors = bunches(20, 3)
    made = assign(vectors, every(vectors), kmeans(vectors, every(vectors), 3, 0))
    assert made.sizes.tolist() == [20, 20, 20]
    assert all(len(set(made.labels[at : at + 20])) == 1 for at in (0, 20, 40))


def test_only_the_given_rows_count() -> None:
    vectors, rows = directions(100), np.arange(0, 100, 3)
    changed = vectors.copy()
    changed[np.setdiff1d(np.arange(100), rows)] = 0
    assert kmeans(vectors, rows, 4, 0).tobytes() == kmeans(changed, rows, 4, 0).tobytes()
    made = assign(vectors, rows, kmeans(vectors, rows, 4, 0))
    assert len(made.labels) == len(made.similarities) == len(rows)


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "LEAST", 50)
    monkeypatch.setattr(training, "POINTS", 10)
    vectors = directions(400)
    picked = np.sort(np.random.default_rng(7).permutation(400)[:50])
    changed = vectors.copy()
    changed[np.setdiff1d(np.arange(400), picked)] = np.nan  # would spread, were one of them read
    assert np.isfinite(kmeans(changed, every(vectors), 5, 7)).all()


def test_a_memory_map_serves_as_well(tmp_path: Path) -> None:
    vectors = directions(200)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    centroids = kmeans(mapped, every(vectors), 5, 0)
    assert centroids.tobytes() == kmeans(vectors, every(vectors), 5, 0).tobytes()
    a, b = assign(mapped, every(vectors), centroids), assign(vectors, every(vectors), centroids)
    assert a.labels.tolist() == b.labels.tolist()
    made = [candidates(some, every(vectors), [2, 5], 0) for some in (mapped, vectors)]
    assert made[0].labels.tobytes() == made[1].labels.tobytes()


@pytest.mark.parametrize("count", [1, 300, 8192, 9000])  # assign works in pieces of 8192
def test_assign_is_brute_force(count: int) -> None:
    vectors, centroids = directions(count), directions(12, seed=9)
    made = assign(vectors, every(vectors), centroids)
    every_similarity = vectors @ made.centroids.T
    assert made.similarities == pytest.approx((vectors @ centroids.T).max(1), abs=1e-6)
    assert every_similarity[every(vectors), made.labels] == pytest.approx(made.similarities, abs=1e-6)


def test_empty_clusters_are_dropped_and_ids_are_compact() -> None:
    axes = np.eye(4, dtype=np.float32)
    vectors = np.repeat(axes[[2, 0, 1]], (3, 2, 1), axis=0)
    made = assign(vectors, every(vectors), np.concatenate([-axes, axes]))
    assert made.centroids.tolist() == axes[:3].tolist()
    assert made.labels.tolist() == [2, 2, 2, 0, 0, 1]
    assert made.sizes.tolist() == [2, 1, 3]


def test_one_cluster_is_the_mean_direction() -> None:
    vectors = directions(50)
    centroids = kmeans(vectors, every(vectors), 1, 0)
    assert centroids == pytest.approx(unit(vectors.sum(0, keepdims=True)), abs=1e-5)
    assert assign(vectors, every(vectors), centroids).sizes.tolist() == [50]


def test_as_many_clusters_as_passages() -> None:
    vectors = directions(12)
    made = assign(vectors, every(vectors), kmeans(vectors, every(vectors), 12, 0))
    assert made.sizes.tolist() == [1] * 12
    assert made.similarities == pytest.approx(1, abs=1e-6)


def test_duplicates_stay_together() -> None:
    vectors = np.repeat(directions(2), 10, axis=0)
    made = assign(vectors, every(vectors), kmeans(vectors, every(vectors), 5, 0))
    assert np.isfinite(made.centroids).all()
    assert 2 <= len(made.centroids) <= 5
    assert made.sizes.min() >= 1
    assert len(set(made.labels[:10])) == len(set(made.labels[10:])) == 1
    assert made.labels[0] != made.labels[10]
    assert made.similarities.min() > 0.999


@pytest.mark.parametrize(
    ("k", "passages", "said"), [(0, 5, "--clusters is 0"), (-2, 5, "at least 1"), (6, 5, "5 passages"), (1, 0, "more")]
)
def test_a_number_that_the_corpus_cannot_fill_is_refused(k: int, passages: int, said: str) -> None:
    with pytest.raises(CoreInferError, match=said):
        check_clusters(k, passages)
    vectors = directions(max(passages, 1))
    with pytest.raises(CoreInferError, match=said):
        kmeans(vectors, np.arange(passages), k, 0)


def test_numbers_that_it_can_fill_pass() -> None:
    check_clusters(1, 1)
    check_clusters(5, 5)


@given(st.integers(1, 30), st.integers(0, 3), st.data())
@settings(max_examples=40, deadline=None)
def test_every_candidate_assigns_to_the_nearest_centroid(count: int, seed: int, data: st.DataObject) -> None:
    """As online: what a passage teaches is what a prompt in its place is given."""
    vectors = directions(count * 4, 8, seed)
    rows = np.sort(np.random.default_rng(seed).permutation(len(vectors))[: 3 * count])
    ks = sorted(data.draw(st.sets(st.integers(1, count), min_size=1, max_size=4)))
    made = candidates(vectors, rows, ks, seed)
    assert made.labels.tobytes() == candidates(vectors, rows, ks, seed).labels.tobytes()
    assert made.labels.dtype == np.int32
    assert (np.delete(made.labels, rows, axis=1) == -1).all()
    for which, (centroids, numbered) in enumerate(zip(made.centroids, made.rows, strict=True)):
        labels = made.labels_of(which)[rows]
        assert set(labels.tolist()) == set(range(len(centroids))) == set(range(numbered.stop - numbered.start))
        assert len(centroids) <= ks[min(which, len(ks) - 1)]
        cosines = vectors[rows] @ centroids.T
        assert cosines[np.arange(len(rows)), labels] == pytest.approx(cosines.max(1), abs=1e-6)


def test_the_finest_candidate_is_plain_k_means() -> None:
    vectors = directions(300)
    made = candidates(vectors, every(vectors), [4, 8, 20], 0)
    plain = assign(vectors, every(vectors), kmeans(vectors, every(vectors), 20, 0))
    assert made.centroids[-1].tobytes() == plain.centroids.tobytes()
    assert made.labels_of(2).tolist() == plain.labels.tolist()
    assert [len(c) for c in made.centroids] == [4, 8, 20]


def test_near_clusters_are_grouped() -> None:
    vectors = bunches(8, 2)
    fine = assign(vectors, every(vectors), kmeans(vectors, every(vectors), 16, 0))
    groups = assign(vectors, every(vectors), coarser(fine, 2, 0)).labels
    assert len(set(groups[:8])) == len(set(groups[8:])) == 1
    assert groups[0] != groups[8]


def test_coarse_centroids_weigh_every_passage_the_same() -> None:
    fine = Clustering(np.eye(4, dtype=np.float32)[:3], np.repeat(np.arange(3), (1, 2, 5)), np.ones(8, np.float32))
    assert coarser(fine, 1, 0) == pytest.approx(unit(np.array([[1, 2, 5, 0]], np.float32)), abs=1e-6)


def test_quantiles_are_those_of_each_cluster() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1, 2])
    similarities = np.array([0.1, 0.9, 0.3, 0.5, 0.2, 0.7, 0.4], np.float32)
    made = Clustering(directions(3), labels, similarities).quantiles()
    assert made.dtype == np.float32
    assert made.shape == (3, len(QUANTILES))
    assert made[:, 2] == pytest.approx([0.2, 0.7, 0.4])
    assert made[0] == pytest.approx(np.quantile([0.1, 0.2, 0.3], QUANTILES))
    assert made[2] == pytest.approx(0.4)
    assert (np.diff(made, axis=1) >= 0).all()


def test_large_clusters_weigh_more_when_grouped() -> None:
    centroids = directions(30)
    even, skewed = np.arange(30), np.repeat(np.arange(30), np.where(np.arange(30) < 3, 500, 1))
    made = [
        coarser(Clustering(centroids, labels, np.ones(len(labels), np.float32)), 4, 0)
        for labels in (even, np.repeat(even, 7), skewed)
    ]
    assert made[0] == pytest.approx(made[1], abs=1e-6)
    assert made[0] != pytest.approx(made[2], abs=1e-2)
