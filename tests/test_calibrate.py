"""The choice of K and the threshold on cases whose answers are known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.embedder import unit
from coreinfer.match import make_index, nearest
from coreinfer.neurons import captured, fixed, mix, mixture_weights, top, uniform_budgets
from coreinfer.settings import PolicySettings
from pipeline.calibrate import MOST, WEAKEST, Shares, choose_k, numbers, priors, quality, threshold
from pipeline.data import Candidates, Statistics

Floats = NDArray[np.float64]


def statistics(shares: Floats, passages: list[int]) -> Statistics:
    """Clusters whose every passage has the share ``shares[c]`` (K, L, F)."""
    counts = np.array(passages)
    return Statistics(fixed(shares * counts[:, None, None]), counts, 10 * counts)


def batches(shares: NDArray[np.floating], size: int = 3) -> Shares:
    """As a recorder hands them over: by the batch, in another order."""
    order = np.random.default_rng(0).permutation(len(shares))
    return ((order[at : at + size], shares[order[at : at + size]]) for at in range(0, len(order), size))


def made_priors(stats: Statistics, weight: float) -> tuple[Floats, Floats]:
    """The global prior (L, F) and the clusters' (K, L, F)."""
    whole, *each = priors(stats, weight)
    return whole, np.stack(each)


@pytest.mark.parametrize(
    ("passages", "expected"),
    [
        (1, [1]), (7, [1]), (16, [2]), (32, [4]), (40, [4, 5]), (64, [4, 8]), (100, [4, 8, 12]),
        (256, [4, 8, 16, 32]), (10**6, [4, 8, 16, 32, 64, 128, 256]),
    ],
)  # fmt: skip
def test_numbers(passages: int, expected: list[int]) -> None:
    assert numbers(passages) == expected
    assert expected[-1] <= MOST


def test_priors_shrink_to_the_global_mean() -> None:
    shares = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    everything, each = made_priors(statistics(shares, [30, 10]), 8.0)
    assert everything == pytest.approx(np.array([[0.75, 0.25]]))
    assert each[0] == pytest.approx(np.array([[(30 + 8 * 0.75) / 38, 8 * 0.25 / 38]]))
    assert each[1] == pytest.approx(np.array([[8 * 0.75 / 18, (10 + 8 * 0.25) / 18]]))
    assert made_priors(statistics(shares, [30, 10]), 0.0)[1] == pytest.approx(shares)
    assert made_priors(statistics(shares, [30, 10]), 1e12)[1] == pytest.approx(np.stack([everything] * 2))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.floats(0.1, 100), st.integers(0, 99))
def test_priors_are_shares_between_cluster_and_global(passages: list[int], weight: float, seed: int) -> None:
    shares = np.random.default_rng(seed).dirichlet(np.ones(6), (len(passages), 2))
    everything, each = made_priors(statistics(shares, passages), weight)
    assert everything == pytest.approx(np.average(shares, axis=0, weights=passages), abs=1e-6)
    assert each.sum(-1) == pytest.approx(1)
    low, high = np.minimum(shares, everything), np.maximum(shares, everything)
    assert ((each >= low - 1e-6) & (each <= high + 1e-6)).all()


def test_priors_are_made_one_by_one() -> None:
    stats = statistics(np.full((3, 1, 2), 0.5), [1, 2, 3])
    stream = priors(stats, 8.0)
    next(stream), next(stream)
    stats.sums[1] = fixed(np.array([[1.0, 0.0]])) * 2  # not yet looked at
    assert next(stream)[0, 0] > 0.5


# Two clusters so far apart that the mixture of both is the nearer one's prior.
FAR = np.array([[1, 0], [-1, 0]], np.float32)


def test_quality_counted_by_hand() -> None:
    stats = statistics(np.array([[[0.5, 0.5, 0, 0]], [[0, 0, 0.5, 0.5]]]), [30, 10])  # global set: neurons 0 and 1
    held = np.array([[[0.4, 0.4, 0.1, 0.1]], [[0.1, 0.2, 0.3, 0.4]], [[0.7, 0.1, 0.1, 0.1]]])
    near = FAR[[0, 1, 1]]  # the third lies with a cluster that does not serve it
    for size in (1, 2, 3):
        mine, general = quality([FAR], [stats], near, batches(held, size), 0.5)
        assert mine == pytest.approx([(0.8 + 0.7 + 0.2) / 3])
        assert general == pytest.approx((0.8 + 0.3 + 0.8) / 3)
    assert quality([FAR], [stats], near, batches(held), 1.0)[0] == pytest.approx([1.0])


def test_quality_averages_layers() -> None:
    one = np.array([[[1.0, 0, 0, 0], [0, 0, 0, 1.0]]])
    held = np.array([[[0.6, 0.2, 0.2, 0], [0.3, 0.3, 0.3, 0.1]]])
    axes = np.eye(1, 3, dtype=np.float32)
    assert quality([axes], [statistics(one, [5])], axes, batches(held), 0.25)[0] == pytest.approx([0.35])


def test_quality_is_that_of_the_mixture_online() -> None:
    """Between two clusters the set is neither one's: the softmax mixture of the nearest decides."""
    rng, policy = np.random.default_rng(3), PolicySettings()
    centroids = unit(rng.normal(size=(6, 3)).astype(np.float32))
    stats = statistics(rng.dirichlet(np.full(40, 0.3), (6, 2)), [3, 9, 4, 20, 5, 8])
    vectors = unit(rng.normal(size=(10, 3)).astype(np.float32))
    held = rng.dirichlet(np.full(40, 0.3), (10, 2))
    _, each = made_priors(stats, policy.shrink)
    matches = nearest(make_index(centroids), vectors, policy.mixture)
    budgets, mixed, single = uniform_budgets(0.2, 2, 40), [], []
    for share, match in zip(held, matches, strict=True):
        score = mix(each[match.clusters], mixture_weights(match.similarities, policy.sharpness))
        mixed.append(captured(share, top(score, budgets)))
        single.append(captured(share, top(each[match.cluster], budgets)))
    (found,), _ = quality([centroids], [stats], vectors, batches(held), 0.2)
    assert found == pytest.approx(np.mean(mixed))
    assert found != pytest.approx(np.mean(single), abs=1e-3)


def options(distinct: int) -> tuple[Candidates, Statistics, NDArray[np.float32], Floats]:
    """32 kinds of passages in ``distinct`` topics, each with two neurons of its own; clusterings of 4, 8, 16 and 32."""
    topics = np.arange(32) % distinct
    ways = unit(np.random.default_rng(0).normal(size=(distinct, 24)).astype(np.float32))
    shares = np.full((32, 1, 64), 0.1 / 64)
    for kind, topic in enumerate(topics):
        shares[kind, 0, [2 * topic, 2 * topic + 1]] += 0.45
    centroids, labels, rows, first = [], [], [], 0
    for k in (4, 8, 16, 32):
        mine = topics % k if distinct > 1 else np.arange(32) % k
        used, mine = np.unique(mine, return_inverse=True)
        centroids.append(unit(np.stack([ways[topics[mine == c]].sum(0) for c in range(len(used))])))
        labels.append((first + np.repeat(mine, 8)).astype(np.int32))
        rows += [
            statistics(shares[mine == c].mean(0, keepdims=True), [8 * int((mine == c).sum())]) for c in range(len(used))
        ]
        first += len(used)
    stats = Statistics(*(np.concatenate([vars(row)[name] for row in rows]) for name in ("sums", "passages", "tokens")))
    return Candidates(centroids, np.stack(labels)), stats, ways[topics], shares


KEEP = 2 / 64


def chosen(distinct: int) -> tuple[int, list[dict[str, float]]]:
    made, stats, vectors, shares = options(distinct)
    return choose_k(made, stats, vectors, batches(shares), KEEP)


def test_identical_clusters_need_few() -> None:
    best, table = chosen(1)
    assert best == 0
    assert [row["captured"] for row in table] == [row["global"] for row in table]


def test_as_many_topics_as_the_coarsest_has_clusters_need_no_more() -> None:
    best, table = chosen(4)
    assert best == 0
    assert table[0]["captured"] == pytest.approx(0.9 + 0.2 / 64, abs=1e-4)
    assert table[0]["captured"] > table[0]["global"] + 0.4


def test_topics_that_all_differ_are_all_kept() -> None:
    best, table = chosen(32)
    assert best == 3
    assert [row["clusters"] for row in table] == [4, 8, 16, 32]
    assert table[-1]["captured"] == pytest.approx(0.9 + 0.2 / 64, abs=1e-4)
    assert table[0]["captured"] < table[-1]["captured"] / 2


def test_a_little_more_gain_is_not_worth_twice_the_clusters() -> None:
    assert chosen(16)[0] == 2


def test_the_threshold_leaves_1_in_20_below() -> None:
    similarities = np.random.default_rng(0).uniform(0.2, 0.9, 400).astype(np.float32)
    assert WEAKEST == 0.05
    assert (similarities < threshold(similarities)).sum() == 20
    assert threshold(np.full(3, 0.7, np.float32)) == 0.7
