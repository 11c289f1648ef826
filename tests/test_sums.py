"""Sums of shares: any order and any sharding of the additions gives the same bits; candidates are numbered through."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.neurons import share
from pipeline.data import Candidates, Statistics

Floats = NDArray[np.float64]
Batch = tuple[NDArray[np.int64], Floats, NDArray[np.int64]]
Passages = list[tuple[int, int]]


def batch(passages: Passages) -> Batch:
    """Clusters (1, B), shares and tokens of (cluster, seed) passages."""
    shares = [share(np.random.default_rng(seed).random((2, 7)) ** 6) for _, seed in passages]
    clusters, tokens = zip(*((c, 1 + seed % 50) for c, seed in passages), strict=True)
    return np.array([clusters]), np.array(shares), np.array(tokens)


def summed(passages: Passages, clusters: int, pieces: list[int]) -> Statistics:
    """Added in batches that end at ``pieces``."""
    out, edges = Statistics.zeros(clusters, 2, 7), sorted({0, *pieces, len(passages)})
    for start, stop in pairwise(edges):
        out.add(*batch(passages[start:stop]))
    return out


def same(a: Statistics, b: Statistics) -> bool:
    pairs = ((a.sums, b.sums), (a.passages, b.passages), (a.tokens, b.tokens))
    return all(x.dtype == y.dtype == np.int64 and x.tobytes() == y.tobytes() for x, y in pairs)


corpora = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**31)), min_size=1, max_size=20)


@given(corpora, st.data())
@settings(deadline=None)
def test_the_order_and_the_batches_of_additions_do_not_matter(passages: Passages, data: st.DataObject) -> None:
    one_pass = summed(passages, 4, [])
    turned = data.draw(st.permutations(passages))
    pieces = data.draw(st.lists(st.integers(1, len(passages))))
    assert same(summed(turned, 4, pieces), one_pass)
    cut = data.draw(st.integers(0, len(passages)))
    shards = [summed(part, 4, []) if part else Statistics.zeros(4, 2, 7) for part in (turned[:cut], turned[cut:])]
    assert (shards[0].sums + shards[1].sums).tobytes() == one_pass.sums.tobytes()
    assert one_pass.passages.sum() == len(passages)
    assert one_pass.tokens.sum() == sum(1 + seed % 50 for _, seed in passages)


@given(corpora, st.lists(st.integers(4, 6), min_size=4, max_size=4))
@settings(deadline=None)
def test_clusterings_beside_each_other_are_recorded_as_if_alone(passages: Passages, groups: list[int]) -> None:
    clusters, shares, tokens = batch(passages)
    both = Statistics.zeros(7, 2, 7)
    both.add(np.concatenate([clusters, np.array(groups)[clusters]]), shares, tokens)
    assert same(both.part(slice(0, 4)), summed(passages, 4, []))
    assert same(both.part(slice(4, 7)), summed([(groups[c] - 4, seed) for c, seed in passages], 3, []))


def test_a_part_is_a_view() -> None:
    made = Statistics.zeros(3, 1, 3)
    made.add(np.array([[1]]), np.full((1, 1, 3), 1 / 3), np.array([5]))
    part = made.part(slice(1, 3))
    assert part.sums.base is made.sums
    assert (part.passages.tolist(), part.tokens.tolist()) == ([1, 0], [5, 0])
    assert part.sums[0].tolist() == made.sums[1].tolist()


def test_candidates_are_numbered_through() -> None:
    centroids = [np.zeros((k, 2), np.float32) for k in (2, 3)]
    made = Candidates(centroids, np.array([[0, 1, -1, 1], [4, 2, -1, 3]], np.int32))
    assert made.rows == [slice(0, 2), slice(2, 5)]
    assert made.labels_of(0).tolist() == [0, 1, -1, 1]
    assert made.labels_of(1).tolist() == [2, 0, -1, 1]
    with pytest.raises(IndexError):
        made.labels_of(2)
