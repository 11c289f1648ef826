"""Equations 1 and 2, the energy and GRIFFIN's statistic against transcriptions in plain Python loops."""

import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coreinfer.settings import CountMode, StatisticKind, StatisticSettings
from coreinfer.statistic import column_energy, core_tokens, finish, reduce_tokens

Floats = NDArray[np.float32]
FRACTIONS = [0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 1.0]
values = st.one_of(st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, -0.5]), st.floats(-8, 8, width=16))


@st.composite
def batches(draw: st.DrawFn) -> tuple[Floats, NDArray[np.bool_]]:
    """Activations (B, T, F) and which tokens count (B, T)."""
    texts, length, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 20))
    a = draw(arrays(np.float32, (texts, length, width), elements=values))
    return a, draw(arrays(np.bool_, (texts, length)))


def slow_core(row: list[float], fraction: float, mode: CountMode) -> list[bool]:
    """Eq. 1 for one token: at or above the k-th largest, ties included, zeros never."""
    sizes = [abs(x) for x in row] if mode == "magnitude" else [x for x in row if x > 0]
    if not sizes:
        return [False] * len(row)
    k = max(1, math.ceil(Fraction(str(fraction)) * len(sizes)))
    least = sorted(sizes, reverse=True)[k - 1]
    return [size > 0 and size >= least for size in (abs(x) if mode == "magnitude" else x for x in row)]


@given(batches(), st.sampled_from(FRACTIONS), st.sampled_from(["magnitude", "positive"]))
@settings(max_examples=100)
def test_count_is_equations_1_and_2(batch: tuple[Floats, NDArray[np.bool_]], fraction: float, mode: CountMode) -> None:
    a, valid = batch
    chosen = StatisticSettings("count", fraction, mode)
    core = core_tokens(torch.from_numpy(a), fraction, mode).tolist()
    sums = reduce_tokens(torch.from_numpy(a), torch.from_numpy(valid), chosen)
    assert sums.dtype == torch.float32
    tokens = torch.from_numpy(valid.sum(1))
    got = finish(sums[:, None], tokens, torch.full((1, a.shape[2]), 7.0), chosen)[:, 0]
    for text in range(a.shape[0]):
        slow = [slow_core(row, fraction, mode) for row in a[text].tolist()]
        assert core[text] == slow
        counted = [row for row, counts in zip(slow, valid[text], strict=True) if counts]
        for neuron in range(a.shape[2]):
            times = sum(row[neuron] for row in counted)
            assert got[text, neuron].item() == pytest.approx(times / len(counted) if counted else 0.0)


@given(batches(), st.integers(1, 6))
def test_energy_is_mean_square_times_column_norm(batch: tuple[Floats, NDArray[np.bool_]], hidden: int) -> None:
    a, valid = batch
    width = a.shape[2]
    rows = np.random.default_rng(hidden).normal(size=(width, hidden)).astype(np.float32)
    columns = column_energy(torch.from_numpy(rows))[None]
    sums = reduce_tokens(torch.from_numpy(a), torch.from_numpy(valid), StatisticSettings())
    got = finish(sums[:, None], torch.from_numpy(valid.sum(1)), columns, StatisticSettings())[:, 0]
    for text in range(a.shape[0]):
        counted = [row for row, counts in zip(a[text].tolist(), valid[text], strict=True) if counts]
        for neuron in range(width):
            mean = sum(row[neuron] ** 2 for row in counted) / max(1, len(counted))
            slow = mean * sum(float(x) ** 2 for x in rows[neuron])
            assert got[text, neuron].item() == pytest.approx(slow, rel=1e-4, abs=1e-9)


@given(batches())
@settings(max_examples=100)
def test_griffin_is_the_norm_of_normalised_tokens(batch: tuple[Floats, NDArray[np.bool_]]) -> None:
    a, valid = batch
    chosen = StatisticSettings("griffin")
    sums = reduce_tokens(torch.from_numpy(a), torch.from_numpy(valid), chosen)
    columns = torch.full((1, a.shape[2]), 7.0)  # the paper's statistic knows no down columns
    got = finish(sums[:, None], torch.from_numpy(valid.sum(1)), columns, chosen)[:, 0].numpy()
    for text in range(a.shape[0]):
        z = a[text][valid[text]].astype(np.float64)
        norms = np.linalg.norm(z, axis=1, keepdims=True)
        papers = np.linalg.norm(np.divide(z, norms, out=np.zeros_like(z), where=norms > 0), axis=0)
        assert got[text] == pytest.approx(papers**2 / max(1, len(z)), rel=1e-4, abs=1e-7)
        assert got[text].sum() == pytest.approx((norms > 0).mean() if len(z) else 0, rel=1e-4)


def test_one_loud_token_does_not_decide_for_griffin() -> None:
    a = torch.tensor([[[1e4, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]]])
    every = torch.ones(1, 3)
    for kind, first in (("energy", 0), ("griffin", 1)):
        chosen = StatisticSettings(kind)  # type: ignore[arg-type]
        got = finish(reduce_tokens(a, None, chosen)[:, None], torch.tensor([3]), every, chosen)
        assert int(got.argmax()) == first


@given(batches(), st.sampled_from(get_args(StatisticKind)))
def test_no_mask_means_every_token(batch: tuple[Floats, NDArray[np.bool_]], kind: StatisticKind) -> None:
    a = torch.from_numpy(batch[0])
    chosen = StatisticSettings(kind)
    every = torch.ones(a.shape[:2], dtype=torch.bool)
    assert torch.equal(reduce_tokens(a, None, chosen), reduce_tokens(a, every, chosen))


@pytest.mark.parametrize("kind", get_args(StatisticKind))
@pytest.mark.parametrize("junk", [float("nan"), float("inf"), 1e30])
def test_padding_cannot_leak(kind: StatisticKind, junk: float) -> None:
    a = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(0))
    chosen = StatisticSettings(kind)
    padded = torch.cat([torch.full((1, 2, 6), junk), a], 1)
    valid = torch.tensor([[False, False, True, True, True, True]])
    assert torch.allclose(reduce_tokens(padded, valid, chosen), reduce_tokens(a, None, chosen))


@pytest.mark.parametrize("mode", ["magnitude", "positive"])
def test_bfloat16_ranks_as_its_own_values(mode: CountMode) -> None:
    a = torch.randn(3, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(core_tokens(a, 0.3, mode), core_tokens(a.float(), 0.3, mode))


def test_energy_in_bfloat16_sums_in_float32() -> None:
    a = torch.full((1, 4096, 2), 0.1, dtype=torch.bfloat16)
    got = reduce_tokens(a, None, StatisticSettings())
    assert got.tolist()[0] == pytest.approx([4096 * float(a[0, 0, 0]) ** 2] * 2, rel=1e-4)


@pytest.mark.parametrize("kind", get_args(StatisticKind))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.filterwarnings("ignore:invalid value")  # of the interpreter
@pytest.mark.parametrize("shape", [(1, 18, 100), (2, 1, 64)])
def test_the_kernels_equal_torch(kind: StatisticKind, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    """On Triton's interpreter; many activations are equal or 0, so that ties lie at the thresholds."""
    fused = pytest.importorskip("coreinfer.fused")
    pytest.importorskip("triton")
    torch.manual_seed(0)
    a, valid = torch.randn(shape).mul(4).round().div(4).to(dtype), torch.rand(shape[:2]) > 0.8
    core = max(1, math.ceil((chosen := StatisticSettings(kind)).token_fraction * shape[2]))
    layers = [a] if shape[1] > 1 else [a, a.square()]
    layers[0][0, 0, 1], layers[0][-1, -1, 2] = torch.nan, torch.inf
    for mask in (valid,) if shape[1] > 1 else (valid, None):
        for layer, found in zip(layers, fused.reduce(layers, mask, kind, core), strict=True):
            wanted = reduce_tokens(layer, mask, chosen)
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6, equal_nan=True)


@given(st.integers(1, 70), st.integers(0, 2**32), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=5, deadline=None)
def test_core_are_those_that_reach_the_kth_magnitude(k: int, seed: int, dtype: torch.dtype) -> None:
    """Of every k, and of bits that no activation has: infinities, the smallest numbers, zeros of both signs."""
    fused = pytest.importorskip("coreinfer.fused")
    pytest.importorskip("triton")
    rng = np.random.default_rng(seed)
    bits = rng.integers(-(2**31), 2**31, 70, dtype=np.int64) & ~rng.choice([0, 0x7F80_0000, 0x7FFF_0000], 70)
    a = torch.from_numpy(bits.astype(np.int32)).view(torch.float32).nan_to_num(1.0).to(dtype).view(1, 1, 70)
    size = a.abs().flatten().float()
    wanted = ((size >= size.sort(descending=True).values[k - 1]) & (size > 0)).float()
    wanted[size.isinf()] = torch.nan
    torch.testing.assert_close(fused.reduce([a], None, "count", k).flatten(), wanted, rtol=0, atol=0, equal_nan=True)


def test_a_kernel_that_fails_leaves_it_to_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from coreinfer import fused

    def fails(*args: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(fused, "reduce", fails)
    monkeypatch.setattr(fused, "_failed", set())
    for _ in range(2):
        assert fused.by_kernels([torch.ones(1, 2, 3)], None, StatisticSettings(), 2) is None
    assert [record.message.count("no compiler") for record in caplog.records] == [1]
    positive = StatisticSettings("count", mode="positive")
    fused._failed.clear()
    assert fused.by_kernels([torch.ones(1, 2, 3)], None, positive, 2) is None
