"""The nearest clusters against brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer.embedder import unit
from coreinfer.match import Match, make_index, nearest


@given(st.integers(1, 40), st.integers(1, 10), st.integers(1, 6), st.integers(0, 99))
@settings(deadline=None)
def test_nearest_is_brute_force_cosine(clusters: int, m: int, prompts: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    centroids, vectors = (unit(rng.normal(size=(n, 12)).astype(np.float32)) for n in (clusters, prompts))
    found = nearest(make_index(centroids), vectors, m)
    assert len(found) == prompts
    for vector, match in zip(vectors, found, strict=True):
        cosines = [
            float(vector.astype(float) @ c) / float(np.linalg.norm(vector) * np.linalg.norm(c)) for c in centroids
        ]
        assert match.clusters.dtype == np.int64
        assert len(match.clusters) == len(match.similarities) == min(m, clusters)
        assert len(set(match.clusters.tolist())) == len(match.clusters)
        assert [cosines[c] for c in match.clusters] == pytest.approx(sorted(cosines, reverse=True)[:m], abs=1e-5)
        assert match.similarities == pytest.approx([cosines[c] for c in match.clusters], abs=1e-5)
        assert (np.diff(match.similarities) <= 0).all()
        assert match.cluster == match.clusters[0]
        assert match.similarity == float(match.similarities[0])
        assert match.margin >= 0


def test_fewer_clusters_than_asked_for() -> None:
    axes = np.eye(3, dtype=np.float32)
    (match,) = nearest(make_index(axes[:2]), axes[1:2], 4)
    assert match.clusters.tolist() == [1, 0]
    assert match.similarities.tolist() == [1, 0]


def test_margin() -> None:
    assert Match(np.array([4, 2, 0]), np.array([0.75, 0.5, 0.1], np.float32)).margin == 0.25
    assert Match(np.array([4]), np.array([0.75], np.float32)).margin == 0


def test_rows_of_any_memory_order_and_type() -> None:
    vectors = np.asfortranarray(np.random.default_rng(0).normal(size=(4, 6)))
    index = make_index(vectors.astype(np.float32))
    assert [m.cluster for m in nearest(index, vectors.astype(np.float32), 1)] == np.argmax(
        vectors @ vectors.T, axis=1
    ).tolist()
    assert [len(m.clusters) for m in nearest(index, vectors[:0].astype(np.float32), 1)] == []
