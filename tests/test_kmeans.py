"""The sample's rule, two levels of k-means and the move over their borders, against slow truths; any threads."""

import numpy as np
import pytest
import threadpoolctl
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.embedder import unit
from pipeline import kmeans
from pipeline.kmeans import apportioned, centroids_of, nearest_of, sample_size
from pipeline.mapped import rows_of
from pipeline.scale.synthetic import BLOCK, Synthetic

Vectors = NDArray[np.float32]
DIMENSION = 24


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return Synthetic(64, DIMENSION).block(0, 6000)


def similarity(vectors: Vectors, centroids: Vectors) -> float:
    return float((vectors @ centroids.T).max(1).mean())


@given(st.integers(1, 10**8), st.integers(1, 10**6), st.sampled_from([16, 384, 1024]))
def test_the_sample_has_enough_points_and_a_bound(passages: int, k: int, dimension: int) -> None:
    if k > passages:
        return
    size = sample_size(passages, k, dimension)
    assert min(passages, k) <= size <= passages
    assert size <= max(kmeans.LEAST, kmeans.POINTS * k)
    if k <= kmeans.FLAT:
        assert 4 * dimension * size <= max(kmeans.MOST, 4 * dimension * k)
        bounded = kmeans.MOST // (4 * dimension)
        assert size == passages or size == max(k, min(bounded, max(kmeans.LEAST, kmeans.POINTS * k)))
    assert sample_size(passages, k, dimension) <= sample_size(passages + 1, k, dimension)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.data())
def test_centroids_are_shared_out_in_proportion(sizes: list[int], data: st.DataObject) -> None:
    some, total = sum(size > 0 for size in sizes), sum(sizes)
    if not total:
        return
    k = data.draw(st.integers(some, total))
    given_ = apportioned(np.array(sizes), k)
    assert given_.sum() == k
    for size, number in zip(sizes, given_.tolist(), strict=True):
        assert (number > 0) == (size > 0)
        assert number <= size
        assert number >= min(size, size * k // total) - len(sizes)


def test_two_levels_are_nearly_as_good_as_one(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.arange(len(vectors))
    flat = centroids_of(vectors, rows, 100, 0)
    monkeypatch.setattr(kmeans, "FLAT", 50)
    two = centroids_of(vectors, rows, 100, 0)
    monkeypatch.setattr(kmeans, "MOVES", 0)
    unmoved = centroids_of(vectors, rows, 100, 0)
    assert two.shape == flat.shape == (100, DIMENSION)
    assert np.linalg.norm(two, axis=1) == pytest.approx(1, abs=1e-6)
    chance = vectors[np.random.default_rng(0).permutation(len(vectors))[:100]]
    best, worst = similarity(vectors, flat), similarity(vectors, chance)
    assert worst < similarity(vectors, unmoved) < similarity(vectors, two)
    assert similarity(vectors, two) > best - 0.1 * (best - worst)


def test_a_move_goes_to_the_mean_of_the_nearest(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "PIECE", 700)
    start = vectors[1:80:2]
    nearest = (vectors @ start.T).argmax(1)
    rows = np.flatnonzero(nearest != 3)  # nobody is nearest to the fourth
    labels = nearest[rows]
    slow = [
        unit(np.array([vectors[rows][labels == c].sum(0)]))[0] if (labels == c).any() else start[c] for c in range(40)
    ]
    assert kmeans._moved(vectors, rows, start) == pytest.approx(np.stack(slow), abs=1e-5)


def test_any_number_of_threads_finds_the_same(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kmeans, "FLAT", 50)
    found = list[bytes]()
    for threads in (1, 2, 4):
        with threadpoolctl.threadpool_limits(threads):
            centroids = centroids_of(vectors, np.arange(len(vectors)), 200, 3)
            found.append(centroids.tobytes() + nearest_of(vectors, np.arange(len(vectors)), centroids)[0].tobytes())
    assert found[0] == found[1] == found[2]


def test_no_group_is_larger_in_memory_than_allowed(vectors: Vectors, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[int]()

    def spy(some: Vectors, rows: NDArray[np.int64]) -> Vectors:
        read.append(len(rows))
        return rows_of(some, rows)

    monkeypatch.setattr(kmeans, "rows_of", spy)
    monkeypatch.setattr(kmeans, "FLAT", 10)
    monkeypatch.setattr(kmeans, "MOST", 4 * DIMENSION * 300)
    monkeypatch.setattr(kmeans, "PIECE", 256)
    assert centroids_of(vectors, np.arange(len(vectors)), 40, 0).shape == (40, DIMENSION)
    assert max(read) == 300


def test_made_up_embeddings_are_the_same_however_many_there_are() -> None:
    one, other = Synthetic(200, DIMENSION), Synthetic(200, DIMENSION)
    assert one.block(2, 50).tobytes() == other.block(2, 50).tobytes() != other.block(3, 50).tobytes()
    cosine = (one.block(0, 500) @ one.topics.T).max(1).mean()
    assert 0.6 < cosine < 0.9
    assert BLOCK % 2 == 0
