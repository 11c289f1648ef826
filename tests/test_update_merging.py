"""Merging: what is added to a stored cluster is what one build over all passages would have stored, within a bound."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from coreinfer.embedder import unit
from pipeline.calibrate import priors
from pipeline.data import QUANTILES, Statistics
from pipeline.index import short
from pipeline.updating.merging import bound, merged, merged_quantiles, merged_terms, merged_whole, moved

L, F = 2, 40
Floats = NDArray[np.float64]


def some(rng: np.random.Generator, counts: list[int]) -> Statistics:
    """Statistics of so many random passages in each cluster; shares of them differ by many powers of ten."""
    out = Statistics.zeros(len(counts), L, F)
    for cluster, count in enumerate(counts):
        raw = rng.gamma(0.2, size=(count, L, F)) + 1e-12
        rows = np.full((1, count), cluster)
        out.add(rows, raw / raw.sum(-1, keepdims=True), rng.integers(1, 99, count))
    return out


def whole_of(rows: list[Floats], sizes: list[int], shrink: float) -> Floats:
    """The global prior as the clusters' rows imply it."""
    weights = [n + shrink for n in sizes]
    return np.asarray(np.tensordot(weights, rows, 1) / sum(weights))


def updated(stored: list[Floats], sizes: list[int], new: Statistics, shrink: float) -> list[Floats]:
    """The global prior's row and the clusters', as an update stores them."""
    whole = whole_of(stored[1:], sizes, shrink)
    sums = new.sums / 2.0**36
    now = merged_whole(whole, sum(sizes), sums.sum(0), int(new.passages.sum()))
    rows = [merged(stored[c + 1], n, sums[c], int(new.passages[c]), whole, now, shrink) for c, n in enumerate(sizes)]
    return [short(row).astype(np.float64) for row in (now, *rows)]


counts = st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), min_size=1, max_size=4)


@given(counts, st.sampled_from([0.0, 1.0, 8.0, 100.0]), st.integers(0, 1 << 20))
@settings(max_examples=60, deadline=None)
def test_an_update_stores_what_one_build_would(found: Any, shrink: float, seed: int) -> None:
    rng, old, more = np.random.default_rng(seed), [a for a, _ in found], [b for _, b in found]
    first, second = some(rng, old), some(rng, more)
    both = Statistics(first.sums + second.sums, first.passages + second.passages, first.tokens + second.tokens)
    stored = [short(row).astype(np.float64) for row in priors(first, shrink)]
    exact, made = list(priors(both, shrink)), updated(stored, old, second, shrink)
    whole = np.maximum(next(priors(first, shrink)), exact[0])
    assert (np.abs(made[0] - exact[0]) <= bound(exact[0], whole, sum(old), 0)).all()
    for cluster, total in enumerate(both.passages.tolist(), start=1):
        off = np.abs(made[cluster] - exact[cluster])
        assert (off <= bound(exact[cluster], whole, total, shrink)).all()
    assert np.allclose(whole_of(made[1:], both.passages.tolist(), shrink), made[0], rtol=2**-11, atol=1e-10)


def test_many_updates_drift_no_further_than_their_roundings() -> None:
    """Twenty updates of one cluster in turn: the global prior stays the clusters' mean, as ``verify`` wants it."""
    rng, shrink = np.random.default_rng(0), 8.0
    total, sizes = some(rng, [5, 9, 2]), [5, 9, 2]
    stored = [short(row).astype(np.float64) for row in priors(total, shrink)]
    for turn in range(20):
        more = some(rng, [3 * (turn % 3 == c) for c in range(3)])
        stored = updated(stored, sizes, more, shrink)
        total = Statistics(total.sums + more.sums, total.passages + more.passages, total.tokens + more.tokens)
        sizes = total.passages.tolist()
        off = np.abs(whole_of(stored[1:], sizes, shrink) - stored[0])
        assert (off <= 2.0**-12 * 2 * stored[0] + 1e-10).all()
    for row, exact in zip(stored, priors(total, shrink), strict=True):
        assert np.abs(row - exact).sum(-1).max() < 0.002


@pytest.mark.parametrize(("old", "new"), [(200, 100), (50, 500), (1000, 3)])
def test_quantiles_are_those_of_all_members(old: int, new: int) -> None:
    rng = np.random.default_rng(old)
    before, after = rng.normal(0.5, 0.1, old), rng.normal(0.4, 0.1, new).astype(np.float32)
    stored = np.quantile(before, QUANTILES).astype(np.float32)
    exact = np.quantile(np.concatenate([before, after]), QUANTILES)
    found = merged_quantiles(stored, old, 1.0, after)
    assert np.abs(found - exact).max() < 0.02
    assert (np.diff(found) >= 0).all()
    assert merged_quantiles(stored, old, 1.0, after[:0]) is stored


@given(
    st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5),
    st.lists(st.floats(-1, 1, width=32)),
    st.integers(1, 99),
)
def test_quantiles_always_rise(stored: list[float], new: list[float], old: int) -> None:
    found = merged_quantiles(np.sort(np.array(stored, np.float32)), old, 0.9, np.array(new, np.float32))
    assert found.dtype == np.float32
    assert (np.diff(found) >= 0).all()
    assert (np.abs(found) <= 1).all()


def test_centroids_move_to_the_mean_of_all_members() -> None:
    rng = np.random.default_rng(0)
    middle = unit(rng.normal(size=(3, 16)).astype(np.float32))
    old = [unit(c + 0.3 * rng.normal(size=(300, 16)).astype(np.float32)) for c in middle]
    centroids = unit(np.stack([members.mean(0) for members in old]))
    quantiles = np.array([np.quantile(m @ c, QUANTILES) for m, c in zip(old, centroids, strict=True)], np.float32)
    new = [
        unit(c + 0.5 * rng.normal(size=(n, 16)).astype(np.float32)) for c, n in zip(middle, (0, 30, 600), strict=True)
    ]
    found = moved(centroids, quantiles, np.array([300] * 3), np.stack([n.sum(0) for n in new]).astype(np.float64))
    exact = unit(np.stack([np.concatenate(pair).mean(0) for pair in zip(old, new, strict=True)]))
    assert np.array_equal(found[0], centroids[0])
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert ((found * exact).sum(1) > 0.9999).all()


def test_members_that_cancel_out_leave_the_centroid() -> None:
    c = np.eye(1, 4, dtype=np.float32)
    assert np.array_equal(moved(c, np.ones((1, 5), np.float32), np.array([2]), -2.0 * c.astype(float)), c)


def test_terms_make_room_for_those_of_the_new_texts() -> None:
    old, new = [f"old{i}" for i in range(8)], ["old0", *(f"new{i}" for i in range(8))]
    assert merged_terms(old, 100, new, 0) == merged_terms(old, 100, [], 50) == old
    assert merged_terms(old, 50, new, 50) == [*old[:4], "new0", "new1", "new2", "new3"]
    assert merged_terms(["a"], 1, ["a", "b"], 99) == ["a", "b"]
