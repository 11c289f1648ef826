"""Compiled loops against torch's operations and plain NumPy; what they fall back to."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer import summing
from coreinfer.neurons import FIXED_POINT, fixed
from coreinfer.settings import StatisticSettings
from coreinfer.statistic import reduce_texts, reduce_tokens
from coreinfer.threads import running_on

KINDS = [StatisticSettings(), StatisticSettings("griffin"), StatisticSettings("count", 0.3)]
STARTS = np.array([0, 5, 5, 6, 40])  # one text is empty


def activations(dtype: torch.dtype, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(48, 77) with zeros and ties, and which of the tokens count."""
    rng = torch.Generator().manual_seed(seed)
    a = (torch.randn(48, 77, generator=rng) * 4).round() / 4
    a[7] = 0
    return a.to(dtype), torch.rand(48, generator=rng) > 0.2


def slowly(a: torch.Tensor, counts: torch.Tensor, chosen: StatisticSettings) -> torch.Tensor:
    return torch.cat([reduce_tokens(a[None, s:e].double(), counts[None, s:e], chosen) for s, e in pairwise(STARTS)])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chosen", KINDS, ids=lambda chosen: chosen.kind)
def test_loops_are_torchs_operations(chosen: StatisticSettings, dtype: torch.dtype, threads: int) -> None:
    a, counts = activations(dtype)
    with running_on(threads):
        got = reduce_texts(a, counts, STARTS, chosen)
    assert got.dtype == torch.float32
    assert torch.allclose(got, slowly(a, counts, chosen).float(), rtol=1e-5, atol=1e-7)
    assert not got[1].any()
    assert torch.equal(got, reduce_texts(a, counts, STARTS, chosen))


def test_counts_are_exact() -> None:
    for seed in range(20):
        a, counts = activations(torch.bfloat16, seed)
        for core in (0.01, 0.4, 1.0):
            chosen = StatisticSettings("count", core)
            assert torch.equal(reduce_texts(a, counts, STARTS, chosen), slowly(a, counts, chosen))


@pytest.mark.parametrize("odd", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("chosen", KINDS, ids=lambda chosen: chosen.kind)
def test_what_is_no_number_stays_none(
    chosen: StatisticSettings, dtype: torch.dtype, odd: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the loops and in torch; of a token that does not count it does not matter."""
    a, counts = activations(dtype)
    counts[8], counts[9] = True, False
    a[8, 3] = a[9] = odd
    for loops in (summing._loops, lambda: None):
        monkeypatch.setattr(summing, "_loops", loops)
        got = reduce_texts(a, counts, STARTS, chosen)
        assert not got[3, 3].isfinite()
        assert got[:3].isfinite().all()
        assert chosen.kind == "griffin" or got[3].isfinite().sum() == 76


def test_what_loops_do_not_know_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    a, counts = activations(torch.float32)
    positive = StatisticSettings("count", 0.3, "positive")
    assert torch.equal(reduce_texts(a, counts, STARTS, positive), slowly(a, counts, positive))
    monkeypatch.setattr(summing, "_loops", lambda: None)  # no Numba
    for chosen in KINDS:
        assert torch.allclose(reduce_texts(a, counts, STARTS, chosen), slowly(a, counts, chosen), rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2])
@settings(deadline=None)  # the loops may have to be compiled
@given(data=st.data())
def test_sums_are_exact(threads: int, data: Any) -> None:
    seed, texts = data.draw(st.integers(0, 1000)), data.draw(st.integers(0, 5))
    rng = np.random.default_rng(seed)
    shares, rows = rng.random((texts, 2, 7)) / 7, rng.integers(0, 4, (3, texts))
    wanted = rng.integers(-9, 9, (4, 2, 7))
    got = wanted.copy()
    for mine, one in zip(rows.T, shares, strict=True):
        for row in mine:
            wanted[row] += fixed(one)
    with running_on(threads):
        summing.add_shares(got, rows, shares)
    assert (got == wanted).all()


def test_no_sum_is_added_beside_the_clusters() -> None:
    sums = np.zeros((2, 1, 3), np.int64)
    for row in (-1, 2):
        with pytest.raises(IndexError, match="of 2"):
            summing.add_shares(sums, np.array([[row]]), np.ones((1, 1, 3)))
    assert not sums.any()


def test_the_loops_fixed_point_is_ours() -> None:
    loops = pytest.importorskip("coreinfer.loops")
    assert loops.FIXED_POINT == FIXED_POINT
