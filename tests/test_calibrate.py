"""The choice of K and the threshold on cases whose answers are known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.neurons import fixed
from coreinfer.settings import PolicySettings
from pipeline.calibrate import MOST, WEAKEST, candidates, choose_k, coarser, held_out, priors, quality, threshold
from pipeline.cluster import Clustering
from pipeline.record import Statistics

Floats = NDArray[np.float64]


def statistics(shares: Floats, passages: list[int]) -> Statistics:
    """Clusters whose every passage has the share ``shares[c]`` (K, L, F)."""
    counts = np.array(passages)
    return Statistics(fixed(shares * counts[:, None, None]), counts, 10 * counts)


def clustering(centroids: NDArray[np.float32], size: int) -> Clustering:
    labels = np.repeat(np.arange(len(centroids)), size)
    return Clustering(centroids, labels, np.ones(len(labels), np.float32))


@given(st.integers(0, 100_000), st.integers(0, 1000))
def test_held_out_is_a_small_sorted_part(count: int, seed: int) -> None:
    held = held_out(count, seed)
    assert held.tolist() == held_out(count, seed).tolist()
    assert held.dtype == np.int64
    assert len(held) == min(512, max(count // 50, min(count // 20, 32)))
    assert (np.diff(held) > 0).all()  # so that the rest is disjoint from it
    assert not len(held) or (held[0] >= 0 and held[-1] < count)


@pytest.mark.parametrize(
    ("count", "size"), [(0, 0), (19, 0), (20, 1), (640, 32), (1600, 32), (5000, 100), (10**6, 512)]
)
def test_how_many_are_held_out(count: int, size: int) -> None:
    assert len(held_out(count, 0)) == size


def test_another_seed_holds_out_others() -> None:
    assert held_out(1000, 0).tolist() != held_out(1000, 1).tolist()


@pytest.mark.parametrize(
    ("passages", "expected"),
    [
        (1, [1]), (7, [1]), (16, [2]), (32, [4]), (40, [4, 5]), (64, [4, 8]), (100, [4, 8, 12]),
        (256, [4, 8, 16, 32]), (10**6, [4, 8, 16, 32, 64, 128, 256]),
    ],
)  # fmt: skip
def test_candidates(passages: int, expected: list[int]) -> None:
    assert candidates(passages) == expected
    assert expected[-1] <= MOST


def test_priors_shrink_to_the_global_mean() -> None:
    shares = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    everything, each = priors(statistics(shares, [30, 10]), 8.0)
    assert everything == pytest.approx(np.array([[0.75, 0.25]]))
    assert each[0] == pytest.approx(np.array([[(30 + 8 * 0.75) / 38, 8 * 0.25 / 38]]))
    assert each[1] == pytest.approx(np.array([[8 * 0.75 / 18, (10 + 8 * 0.25) / 18]]))
    assert priors(statistics(shares, [30, 10]), 0.0)[1] == pytest.approx(shares)
    assert priors(statistics(shares, [30, 10]), 1e12)[1] == pytest.approx(np.stack([everything] * 2))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.floats(0.1, 100), st.integers(0, 99))
def test_priors_are_shares_between_cluster_and_global(passages: list[int], weight: float, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(6), (len(passages), 2))
    everything, each = priors(statistics(shares, passages), weight)
    assert everything == pytest.approx(np.average(shares, axis=0, weights=passages), abs=1e-6)
    assert each.sum(-1) == pytest.approx(1)
    low, high = np.minimum(shares, everything), np.maximum(shares, everything)
    assert ((each >= low - 1e-6) & (each <= high + 1e-6)).all()


def test_quality_counted_by_hand() -> None:
    stats = statistics(np.array([[[0.5, 0.5, 0, 0]], [[0, 0, 0.5, 0.5]]]), [30, 10])  # global set: neurons 0 and 1
    axes = np.eye(2, dtype=np.float32)
    held = np.array([[[0.4, 0.4, 0.1, 0.1]], [[0.1, 0.2, 0.3, 0.4]], [[0.7, 0.1, 0.1, 0.1]]])
    near = axes[[0, 1, 1]]  # the third lies with a cluster that does not serve it
    mine, everything = quality(stats, axes, near, held, 0.5)
    assert mine == pytest.approx((0.8 + 0.7 + 0.2) / 3)
    assert everything == pytest.approx((0.8 + 0.3 + 0.8) / 3)
    assert quality(stats, axes, near, held, 1.0) == pytest.approx((1.0, 1.0))


def test_quality_averages_layers() -> None:
    one = np.array([[[1.0, 0, 0, 0], [0, 0, 0, 1.0]]])
    held = np.array([[[0.6, 0.2, 0.2, 0], [0.3, 0.3, 0.3, 0.1]]])
    axes = np.eye(1, 3, dtype=np.float32)
    assert quality(statistics(one, [5]), axes, axes, held, 0.25) == pytest.approx((0.35, 0.35))


def test_coarser_centroids_are_weighted_by_size() -> None:
    fine = clustering(np.eye(4, dtype=np.float32)[:3], 4)
    stats = statistics(np.full((3, 1, 2), 0.5), [1, 2, 5])
    centroids, groups = coarser(fine, stats, 1, 0)
    assert groups.tolist() == [0, 0, 0]
    assert centroids == pytest.approx(unit(np.array([[1, 2, 5, 0]], np.float32)), abs=1e-6)


def fine_clusters(distinct: int) -> tuple[Clustering, Statistics, NDArray[np.float32], NDArray[np.float32]]:
    """32 clusters of 8 passages around ``distinct`` directions, each direction with two neurons of its own."""
    kinds = np.arange(32) % distinct
    ways = np.random.default_rng(0).normal(size=(distinct, 24))
    noise = 0.02 * np.random.default_rng(1).normal(size=(32, 24))
    centroids = unit((ways[kinds] + noise).astype(np.float32))
    shares = np.full((32, 1, 64), 0.1 / 64)
    for cluster, kind in enumerate(kinds):
        shares[cluster, 0, [2 * kind, 2 * kind + 1]] += 0.45
    return clustering(centroids, 8), statistics(shares, [8] * 32), centroids, shares.astype(np.float32)


KEEP = 2 / 64


def test_identical_clusters_need_few() -> None:
    centroids, groups, table = choose_k(*fine_clusters(1), KEEP, 0)
    assert len(centroids) == int(groups.max()) + 1 <= 4
    assert [row["captured"] for row in table] == [row["global"] for row in table]


def test_two_kinds_need_few() -> None:
    fine, stats, vectors, shares = fine_clusters(2)
    centroids, groups, table = choose_k(fine, stats, vectors, shares, KEEP, 0)
    assert len(centroids) == table[0]["clusters"] <= 4
    assert len(set(groups[::2].tolist()) & set(groups[1::2].tolist())) == 0  # kinds alternate and are not mixed
    assert table[0]["captured"] == pytest.approx(0.9 + 0.2 / 64, abs=1e-6)
    assert table[0]["captured"] > table[0]["global"] + 0.4


def test_clusters_that_all_differ_are_all_kept() -> None:
    fine, stats, vectors, shares = fine_clusters(32)
    centroids, groups, table = choose_k(fine, stats, vectors, shares, KEEP, 0)
    assert centroids.tobytes() == fine.centroids.tobytes()
    assert groups.tolist() == list(range(32))
    assert table[-1]["clusters"] == 32
    assert [row["clusters"] for row in table] == sorted(row["clusters"] for row in table)
    assert table[-1]["captured"] == pytest.approx(0.9 + 0.2 / 64, abs=1e-6)
    assert table[0]["captured"] < table[-1]["captured"] / 2


def test_the_same_seed_chooses_the_same() -> None:
    made = [choose_k(*fine_clusters(8), KEEP, 5) for _ in range(2)]
    assert made[0][0].tobytes() == made[1][0].tobytes()
    assert made[0][1].tolist() == made[1][1].tolist()
    assert made[0][2] == made[1][2]


def test_the_threshold_leaves_1_in_20_below() -> None:
    similarities = np.random.default_rng(0).uniform(0.2, 0.9, 400).astype(np.float32)
    assert WEAKEST == 0.05
    assert (similarities < threshold(similarities)).sum() == 20
    assert threshold(np.full(3, 0.7, np.float32)) == 0.7
    assert threshold(np.zeros(0, np.float32)) == PolicySettings.threshold
