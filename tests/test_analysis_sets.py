"""The mathematics of an analysis against loops over plain Python sets."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from plain_sets import dice, members, unpacked

from coreinfer.statistic import core_tokens
from pipeline.analysis import correlation
from pipeline.analysis.bits import overlap, pack, sizes
from pipeline.analysis.correlation import Ranked, pairs, spearman
from pipeline.analysis.sentences import by_lot, core_sets, count_sums, energy_sums
from pipeline.analysis.tokens import between, by_distance, independent, used

Masks = NDArray[np.bool_]


def drawn(seed: int, tokens: int, width: int, share: float = 0.4) -> Masks:
    return np.random.default_rng(seed).random((tokens, width)) < share


texts = st.builds(drawn, st.integers(0, 99), st.integers(1, 20), st.sampled_from([1, 7, 64, 65, 130]), st.floats(0, 1))


@settings(deadline=None)
@given(texts)
def test_bits_hold_the_sets(masks: Masks) -> None:
    packed = pack(masks)
    assert packed.shape == (len(masks), -(-masks.shape[1] // 64))
    assert sizes(packed).tolist() == masks.sum(1).tolist()
    for row, words in zip(masks, packed, strict=True):
        assert members(row) == unpacked(words)
        assert overlap(words, packed) == pytest.approx([dice(members(row), members(other)) for other in masks])


@settings(deadline=None)
@given(texts, st.integers(0, 99))
def test_tokens_are_compared_by_distance_and_between_texts(masks: Masks, seed: int) -> None:
    sets, distances = [members(row) for row in masks], [1, 2, 4, 8, 16, 32]
    found = by_distance(pack(masks), distances)
    for d, value in zip(distances, found, strict=True):
        laps = [dice(sets[t], sets[t + d]) for t in range(len(sets) - d)]
        assert value == pytest.approx(np.mean(laps)) if laps else np.isnan(value)
    other = drawn(seed, 5, masks.shape[1])
    laps = [dice(a, members(b)) for a, b in zip(sets, other, strict=False)]
    assert between(pack(masks), pack(other)) == pytest.approx(np.mean(laps))


@settings(deadline=None)
@given(texts)
def test_windows_use_the_union_of_their_tokens(masks: Masks) -> None:
    found = used(pack(masks), 6, masks.shape[1])
    for i, value in enumerate(found):
        starts = range(0, len(masks) - 2**i + 1, 2**i)
        shares = [len(set().union(*map(members, masks[at : at + 2**i]))) / masks.shape[1] for at in starts]
        assert value == pytest.approx(np.mean(shares)) if shares else np.isnan(value)


def test_independent_tokens_use_what_chance_says() -> None:
    found = used(pack(drawn(0, 4096, 640)), 4, 640)
    assert found == pytest.approx([independent(0.4, 2**i) for i in range(4)], abs=0.004)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.lists(st.integers(1, 12), min_size=1, max_size=4, unique=True), st.integers(1, 30))
def test_beginnings_are_ranked_as_if_they_were_all_there_is(seed: int, ends: list[int], neurons: int) -> None:
    a, columns = torch.randn(12, 30, generator=torch.Generator().manual_seed(seed)), torch.arange(1.0, 31.0)
    core, ends = core_tokens(a, 0.3, "magnitude"), sorted(ends)
    assert int(core.sum()) == 12 * 9  # no ties: what is counted below is eq. 1's
    counts, energies = count_sums(core, ends), energy_sums(a, columns, ends)
    for i, end in enumerate(ends):
        assert counts[i].tolist() == [sum(bool(core[t, f]) for t in range(end)) for f in range(30)]
        squares = [float(sum(a[t, f] ** 2 for t in range(end)) * columns[f]) for f in range(30)]
        assert energies[i] == pytest.approx(squares, rel=1e-5)
        best = sorted(range(30), key=lambda f, row=counts[i]: (-row[f], f))[:neurons]  # type: ignore[misc]
        assert unpacked(core_sets(counts, neurons)[i]) == set(best)


@pytest.mark.parametrize(("prompt", "more"), [(4, 4), (20, 5), (3, 30)])
def test_lots_are_what_random_tokens_do(prompt: int, more: int) -> None:
    core = torch.from_numpy(drawn(prompt, prompt + more, 20000))
    first, second = core_sets(count_sums(core, [prompt, prompt + more]), 8000)
    assert by_lot(0.4, 0.4, prompt, more, 1) == pytest.approx(float(overlap(first, second)), abs=0.012)


def test_lots_at_their_ends() -> None:
    assert by_lot(0.4, 0.3, 50, 0, 0) == 1
    assert by_lot(0.4, 0.3, 1, 4000, 0) == pytest.approx(0.3, abs=0.03)


columns = st.lists(st.tuples(*[st.integers(-3, 3)] * 2, st.integers(0, 3)), min_size=3, max_size=12)


@settings(deadline=None)
@given(columns)
def test_weights_repeat_pairs(rows: list[tuple[int, int, int]]) -> None:
    x, y, weights = np.array(rows, float).T
    ours = Ranked(x, y).spearman(weights)
    repeated = [np.repeat(values, weights.astype(int)) for values in (x, y)]
    if any(len(set(values)) < 2 for values in repeated):
        assert np.isnan(ours)
    else:
        assert ours == pytest.approx(scipy.stats.spearmanr(*repeated).statistic)


def test_the_interval_draws_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "DRAWS", 40)
    rng, n = np.random.default_rng(3), 9
    x, noise = rng.random(36), rng.random(36)
    found, low, high = spearman(x, x + 0.7 * noise, n, seed=5)
    assert found == pytest.approx(scipy.stats.spearmanr(x, x + 0.7 * noise).statistic)
    at = {(int(i), int(j)): m for m, (i, j) in enumerate(zip(*pairs(n), strict=True))}
    draws, again = [], np.random.default_rng(5)
    for _ in range(40):
        texts = np.repeat(np.arange(n), again.multinomial(n, np.full(n, 1 / n)))
        picked = [at[int(i), int(j)] for a, i in enumerate(texts) for j in texts[a + 1 :] if i != j]
        draws.append(scipy.stats.spearmanr(x[picked], (x + 0.7 * noise)[picked]).statistic)
    assert (low, high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert low < found < high


def test_what_does_not_vary_has_no_correlation() -> None:
    assert np.isnan(spearman(np.ones(6), np.arange(6.0), 4, 0)).all()
