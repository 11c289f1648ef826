"""When an update advises a rebuild: what is strange, weak, changed or grown, and enough of it."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.updating.drift import Drift, grown, strange, usually_strange

FINE = Drift(
    passages=100, grown=0.1, foreign=8, similarity=0.5, before=0.55, strange=0.08, usual=0.07, weak=0.02,
    cores=np.array([0.99, 0.97]), sizes=np.array([600, 500]), new=np.array([60, 40]),
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, ""),
        ({"strange": 0.28, "foreign": 300}, "less like their cluster"),
        ({"strange": 0.26, "foreign": 300}, ""),  # usual is 0.07, and 0.2 beyond it is chance and taste
        ({"strange": 0.9, "foreign": 90}, ""),  # no half of a usual cluster
        ({"strange": 0.6, "usual": 0.5, "foreign": 300}, ""),  # of small clusters, many like texts are
        ({"weak": 0.3, "foreign": 300}, "match no cluster"),
        ({"weak": 0.3}, ""),
        ({"cores": np.array([0.5, 0.9])}, "only 68% in common"),
        ({"cores": np.array([0.5, 0.9]), "sizes": np.array([100, 900])}, ""),
        ({"grown": 1.2}, "1.2 times"),
        ({"strange": 0.9, "foreign": 19, "sizes": np.array([4, 4])}, ""),
        ({"strange": 0.9, "foreign": 20, "sizes": np.array([4, 4])}, "less like"),
    ],
)
def test_the_rule(changes: dict[str, Any], word: str) -> None:
    drift = replace(FINE, **changes)
    assert bool(drift.reasons) == bool(word)
    assert drift.as_json()["rebuild"] == drift.reasons
    *_, advice = drift.in_words()
    assert word in advice
    assert advice.startswith("rebuild with build-clusters" if word else "no rebuild")
    assert ("too few" in advice) == (drift.apart and not word)


def test_strange_is_below_the_clusters_own_quantile() -> None:
    quantiles = np.array([[0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.6, 0.7, 0.8, 0.9]], np.float32)
    found = strange(np.array([0.3, 0.3, 0.1], np.float32), np.array([0, 1, 0]), quantiles)
    assert found.tolist() == [False, True, True]


def test_small_clusters_find_more_strange() -> None:
    assert usually_strange(np.array([0, 1, 20, 400])).tolist() == [1.0, 1.0, 0.25, pytest.approx(0.06)]


def test_growth_counts_all_updates() -> None:
    assert grown(100, [], 50) == 0.5
    assert grown(150, [{"passages": 50}], 60) == 1.1
