"""The mathematics of neuron sets against brute force."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.neurons import (
    NeuronSet,
    blend,
    captured,
    fixed,
    mean_share,
    mix,
    mixture_weights,
    overlap,
    pack,
    share,
    shrink,
    top,
    uniform_budgets,
    unpack,
)

Floats = NDArray[np.float64]
few_values = st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0])  # few, so that ties and zeros are common
numbers = st.one_of(few_values, st.floats(0, 1e6, allow_subnormal=False))


@st.composite
def statistics(draw: st.DrawFn, elements: st.SearchStrategy[float] = numbers) -> Floats:
    """(L, F)"""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, 21)))
    return draw(arrays(np.float64, shape, elements=elements))


@st.composite
def neuron_sets(draw: st.DrawFn, layers: int | None = None, width: int | None = None, least: int = 0) -> NeuronSet:
    layers, width = layers or draw(st.integers(1, 4)), width or draw(st.integers(1, 40))
    one = st.sets(st.integers(0, width - 1), min_size=least)
    return NeuronSet(tuple(np.array(sorted(draw(one)), np.int32) for _ in range(layers)), width)


def same(a: NeuronSet, b: NeuronSet) -> bool:
    return a.width == b.width and [x.tolist() for x in a.layers] == [x.tolist() for x in b.layers]


@given(statistics(), st.data())
def test_top_is_brute_force_with_ties_to_the_lower_id(score: Floats, data: st.DataObject) -> None:
    layers, width = score.shape
    budgets = np.array(data.draw(st.lists(st.integers(1, width), min_size=layers, max_size=layers)), np.int64)
    neurons = top(score, budgets)
    for row, ids, budget in zip(score.tolist(), neurons.layers, budgets, strict=True):
        best = sorted(range(width), key=lambda i, row=row: (-row[i], i))[:budget]  # type: ignore[misc]
        assert ids.tolist() == sorted(best)
        assert ids.dtype == np.int32
    assert neurons.per_layer == budgets.tolist()
    assert neurons.keep == pytest.approx(budgets.sum() / (layers * width))


def test_top_of_what_is_no_number_and_of_odd_budgets() -> None:
    score = np.array([[0.5, np.nan, 2.0, -np.inf], [np.nan, np.nan, np.nan, 1.0], [3.0, 1.0, 2.0, np.inf]])
    for budgets, wanted in (
        ([2, 2, 2], [[0, 2], [0, 3], [0, 3]]),
        ([4, 4, 9], [[0, 1, 2, 3]] * 3),
        ([0, 1, 1], [[], [3], [3]]),
    ):
        assert [ids.tolist() for ids in top(score, np.array(budgets)).layers] == wanted


@given(statistics(few_values), st.data())
def test_top_sets_are_nested(score: Floats, data: st.DataObject) -> None:
    layers, width = score.shape
    k = data.draw(st.integers(1, width))
    small, large = top(score, np.full(layers, k)), top(score, np.full(layers, min(k + 1, width)))
    assert overlap(small, large) == 1.0


@given(neuron_sets())
def test_pack_round_trips_in_the_stated_bit_order(neurons: NeuronSet) -> None:
    rows = pack(neurons)
    assert same(unpack(rows, neurons.width), neurons)
    for row, ids in zip(rows, neurons.layers, strict=True):
        assert len(row) == math.ceil(neurons.width / 8)
        assert [i for i in range(8 * len(row)) if row[i // 8] >> (i % 8) & 1] == ids.tolist()


@given(neuron_sets())
def test_mask_holds_the_same_neurons(neurons: NeuronSet) -> None:
    mask = neurons.mask()
    assert mask.shape == (len(neurons.layers), neurons.width)
    assert [np.flatnonzero(row).tolist() for row in mask] == [ids.tolist() for ids in neurons.layers]
    assert mask.mean() == pytest.approx(neurons.keep)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        ([0, 3, 3, 5], "neuron 3 after 3"), ([0, 5, 4], "neuron 4 after 5"), ([0, 8], "neuron 8 of 8"),
        ([-1, 3], "neuron -1 of 8"), (np.array([0, 1]), "int64"), (np.array([[0], [1]], np.int32), r"shape \(2, 1\)"),
        (np.array([True, False]), "bool"), ((0, 1), "tuple"),
    ],
)  # fmt: skip
def test_ids_that_are_no_set_are_refused(ids: Any, said: str) -> None:
    wrong = np.array(ids, np.int32) if isinstance(ids, list) else ids
    with pytest.raises(CoreInferError, match=rf"layer 1 of the neuron set .*{said}.*from 0 to 7, each once"):
        NeuronSet((np.arange(8, dtype=np.int32), wrong), 8)
    with pytest.raises(CoreInferError, match="no layers"):
        NeuronSet((), 8)


def test_sets_are_equal_by_their_neurons() -> None:
    def made(*layers: list[int], width: int = 8) -> NeuronSet:
        return NeuronSet(tuple(np.array(ids, np.int32) for ids in layers), width)

    assert made([0, 1], [2, 3]) == made([0, 1], [2, 3])
    assert made([0, 1], [2, 3]) != made([0, 1], [2, 4])
    assert made([0, 1], [2, 3]) != made([0, 1], [2])
    assert made([0, 1]) != made([0, 1], width=9)
    assert hash(made([0, 1], [2, 3])) == hash(made([0, 1], [2, 3]))


@given(st.lists(st.tuples(st.integers(0, 2**31), st.integers(0, 3)), min_size=1, max_size=24), st.randoms())
def test_merging_any_sharding_equals_one_pass_exactly(passages: list[tuple[int, int]], random: Any) -> None:
    def sums(seed: int) -> NDArray[np.int64]:
        return fixed(share(np.random.default_rng(seed).random((3, 17)) ** 8))

    one_pass = np.zeros((3, 17), np.int64)
    for seed, _ in passages:
        one_pass = one_pass + sums(seed)
    shards = [np.zeros((3, 17), np.int64) for _ in range(4)]
    random.shuffle(passages)
    for seed, shard in passages:
        shards[shard] = shards[shard] + sums(seed)
    random.shuffle(shards)
    merged = shards[0]
    for shard_sums in shards[1:]:
        merged = shard_sums + merged
    assert merged.tobytes() == one_pass.tobytes()


@given(statistics())
def test_fixed_point_is_exact_to_its_promise(statistic: Floats) -> None:
    shares = share(statistic)
    assert np.abs(fixed(shares) / 2.0**36 - shares).max() <= 2.0**-37
    assert mean_share(fixed(shares), 1) == pytest.approx(shares, abs=1e-9)


def test_mean_share_of_many_and_of_none() -> None:
    a, b = np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]])
    assert mean_share(fixed(share(a)) + fixed(share(b)), 2) == pytest.approx(np.array([[0.625, 0.375]]))
    assert mean_share(np.zeros((1, 4), np.int64), 0).tolist() == [[0.25] * 4]


@given(statistics())
def test_share_sums_to_one_and_zeros_are_uniform(statistic: Floats) -> None:
    shares = share(statistic)
    assert shares.sum(-1) == pytest.approx(np.ones(len(shares)))
    for row, given_row in zip(shares, statistic, strict=True):
        if given_row.any():
            assert row == pytest.approx(given_row / math.fsum(given_row))
        else:
            assert row == pytest.approx(1 / statistic.shape[1])


def test_share_of_float32_is_float64() -> None:
    shares = share(np.full((2, 3), 1e-30, np.float32))
    assert shares.dtype == np.float64
    assert shares == pytest.approx(1 / 3)


@given(statistics(), st.integers(1, 500), st.floats(0, 1e4), st.randoms(use_true_random=False))
def test_blend_is_the_formula(prompt: Floats, tokens: int, n0: float, random: Any) -> None:
    prior = np.array([[random.random() + 0.01 for _ in row] for row in prompt])
    got = blend(prompt, prior, tokens, n0)
    for layer, row in enumerate(prompt.tolist()):
        p, q = sum(row), sum(prior[layer].tolist())
        for i, x in enumerate(row):
            mine = x / p if p else 1 / len(row)
            assert got[layer, i] == pytest.approx((tokens * mine + n0 * prior[layer, i] / q) / (tokens + n0))


@given(statistics())
def test_blend_has_stability_and_similarity_as_its_ends(prompt: Floats) -> None:
    prior = np.arange(1.0, prompt.size + 1).reshape(prompt.shape)
    assert blend(prompt, prior, 7, 0.0) == pytest.approx(share(prompt))
    assert blend(prompt, prior, 7, 1e15) == pytest.approx(share(prior))


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=6), st.floats(0, 1000))
def test_mixture_weights_are_a_softmax(similarities: list[float], sharpness: float) -> None:
    weights = mixture_weights(np.array(similarities), sharpness)
    best = max(similarities)
    terms = [math.exp(sharpness * (s - best)) for s in similarities]
    assert weights == pytest.approx(np.array(terms) / sum(terms))
    assert weights.sum() == pytest.approx(1)
    uniform = mixture_weights(np.array(similarities), 0.0)
    assert uniform == pytest.approx(1 / len(similarities))


@given(arrays(np.float64, (3, 2, 5), elements=few_values), st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_mix_is_the_weighted_sum(priors: Floats, weights: list[float]) -> None:
    slow = sum(w * p for w, p in zip(weights, priors, strict=True))
    assert mix(priors, np.array(weights)) == pytest.approx(slow)


@given(st.integers(0, 100), st.floats(0.1, 100))
def test_shrink_is_a_weighted_mean(passages: int, weight: float) -> None:
    cluster, prior = np.array([[0.2, 0.8]]), np.array([[0.6, 0.4]])
    got = shrink(cluster, passages, prior, weight)
    assert got.sum() == pytest.approx(1)
    assert got[0, 0] == pytest.approx(0.6 - 0.4 * passages / (passages + weight))


@given(st.data())
def test_overlap_is_the_mean_share_in_both(data: st.DataObject) -> None:
    layers, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 30))
    a, b = (data.draw(neuron_sets(layers, width, 1)) for _ in range(2))
    slow = [len(set(x.tolist()) & set(y.tolist())) / len(x) for x, y in zip(a.layers, b.layers, strict=True)]
    assert overlap(a, b) == pytest.approx(sum(slow) / layers)
    assert overlap(a, a) == 1.0


@given(statistics(), st.data())
def test_captured_counts_what_a_set_holds(statistic: Floats, data: st.DataObject) -> None:
    layers, width = statistic.shape
    neurons, shares = data.draw(neuron_sets(layers, width)), share(statistic)
    slow = [sum(row[i] for i in ids) for row, ids in zip(shares.tolist(), neurons.layers, strict=True)]
    assert captured(shares, neurons) == pytest.approx(sum(slow) / layers)
    assert captured(shares, top(shares, np.full(layers, width))) == pytest.approx(1)


@given(st.floats(0.001, 1), st.integers(1, 9), st.integers(1, 5000))
def test_uniform_budgets_stay_within_the_width(keep: float, layers: int, width: int) -> None:
    budgets = uniform_budgets(keep, layers, width)
    assert budgets.shape == (layers,)
    assert ((budgets >= 1) & (budgets <= width) & (np.abs(budgets - keep * width) <= 1)).all()
