"""Bootstrap intervals: they cover what they say, and differences are paired."""

import numpy as np
import pytest

from coreinfer.evaluate.bootstrap import intervals


def test_intervals_cover_the_mean_as_often_as_they_say() -> None:
    """400 samples of 40 texts from a skewed distribution: about 95% of the intervals hold its mean, not all of them."""
    rng, held = np.random.default_rng(0), 0
    for seed in range(400):
        ends = intervals(rng.gamma(2.0, 1.0, (40, 1)), seed)
        assert ends is not None
        held += int(ends[0][0] <= 2.0 <= ends[1][0])
    assert 0.89 <= held / 400 <= 0.98


def test_intervals_shrink_with_more_texts_and_are_seeded() -> None:
    values = np.random.default_rng(0).normal(size=(400, 2))
    few, many = intervals(values[:25], 0), intervals(values, 0)
    assert few is not None
    assert many is not None
    assert ((few[1] - few[0]) / (many[1] - many[0])).tolist() == pytest.approx([4, 4], rel=0.35)
    again, other = intervals(values, 0), intervals(values, 1)
    assert np.array_equal(many, again)  # type: ignore[arg-type]
    assert not np.array_equal(many, other)  # type: ignore[arg-type]


def test_differences_are_paired() -> None:
    """Two policies that differ by little on every text: their own intervals overlap, the difference's is narrow."""
    rng = np.random.default_rng(0)
    hard = rng.gamma(1.0, 1.0, 50)
    a, b = hard + rng.normal(0, 0.01, 50), hard + 0.05 + rng.normal(0, 0.01, 50)
    ends = intervals(np.stack([a, b, b - a], 1), 0)
    assert ends is not None
    low, high = ends
    assert low[1] < high[0]
    assert 0.04 < low[2] < high[2] < 0.06


@pytest.mark.parametrize("count", [0, 1])
def test_no_interval_for_one_text(count: int) -> None:
    assert intervals(np.ones((count, 3)), 0) is None
