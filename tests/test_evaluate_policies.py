"""What the ladder's policies rank by, without running a language model."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coreinfer import Engine
from coreinfer.evaluate import LADDER, Rungs
from coreinfer.evaluate.policies import GRIFFIN, PAPER, rank_fusion
from coreinfer.match import Match

Floats = NDArray[np.float64]
scores = arrays(np.float64, (2, 7), elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]))


@given(scores, scores)
def test_fused_ranks_are_mean_places(a: Floats, b: Floats) -> None:
    got = rank_fusion(a, b)
    for layer in range(2):
        places = []
        for row in (a[layer].tolist(), b[layer].tolist()):
            order = sorted(range(7), key=lambda j, row=row: (-row[j], j))  # type: ignore[misc]
            places.append([order.index(j) for j in range(7)])
        assert got[layer].tolist() == [-(x + y) / 2 for x, y in zip(*places, strict=True)]


def test_only_order_matters_to_fused_ranks() -> None:
    a, b = np.random.default_rng(0).random((2, 3, 20))
    assert np.array_equal(rank_fusion(a**3 * 7, b), rank_fusion(a, b))
    assert np.array_equal(rank_fusion(a, a).argsort(-1), a.argsort(-1))


def test_a_wrong_cluster_is_outside_the_mixture(engine: Engine) -> None:
    rungs, drawn = Rungs(engine, LADDER), set()
    assert rungs.left_out == ()
    for i in range(60):
        match = Match(np.array([1, 4, 2, 0]), np.array([0.5, 0.4, 0.3, 0.2], np.float32))
        drawn.add(rungs.wrong_cluster(f"text {i}", match))
        assert rungs.wrong_cluster(f"text {i}", match) == rungs.wrong_cluster(f"text {i}", match)
    assert drawn == {3, 5}


def test_what_policies_rank_by_and_keep(engine: Engine) -> None:
    rungs = Rungs(engine, LADDER)
    assert rungs.wanted == [engine.artifact.manifest.statistic, PAPER, GRIFFIN]
    kinds = {policy: rungs.statistic(policy) for policy in LADDER}
    assert (kinds["random"], kinds["paper-stability"], kinds["griffin"], kinds["auto"]) == (
        "none", "count", "griffin", "energy",
    )  # fmt: skip
    assert set(rungs.budgets("paper-stability", 0.4).tolist()) == {1024}
    assert Rungs(engine, ("auto",)).wanted == [engine.artifact.manifest.statistic]
