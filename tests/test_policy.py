"""Which source serves a prompt, and the one formula with its two limits."""

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_artifacts import shares
from small_artifacts import whole as whole

from coreinfer.artifact import Artifact
from coreinfer.match import Match
from coreinfer.neurons import share, top
from coreinfer.output import in_lines, prediction_row
from coreinfer.planning import plan
from coreinfer.policy import choose, score
from coreinfer.routing import route_of, row_of
from coreinfer.settings import Policy, PolicySettings, Source
from pipeline.threshold import GUESSED

Floats = NDArray[np.float64]
AT = PolicySettings(threshold=0.5)
BELOW = float(np.nextafter(np.float32(0.5), np.float32(0)))
EXPLICIT = [policy for policy in get_args(Policy) if policy != "auto"]


def match(similarity: float) -> Match:
    return Match(np.array([7, 3]), np.array([similarity, 0.0], np.float32))


@st.composite
def ranked(draw: st.DrawFn) -> tuple[Floats, Floats]:
    """Two shares (L, F) without ties."""
    layers, width = draw(st.integers(1, 3)), draw(st.integers(1, 20))
    orders = [draw(st.permutations(range(1, width + 1))) for _ in range(2 * layers)]
    return share(np.array(orders[:layers], float)), share(np.array(orders[layers:], float))


@pytest.mark.parametrize("auto", ["hybrid", "similarity"])
def test_auto_falls_back_below_the_threshold_only(auto: Source) -> None:
    settings = PolicySettings(auto=auto, threshold=0.5, strong=0.5)
    source, reason = choose(match(0.5), "auto", settings)  # equal counts as strong
    assert source == auto
    assert reason == "match: similarity 0.500 to cluster 7 reaches the threshold 0.500"
    source, reason = choose(match(BELOW), "auto", settings)
    assert source == "stability"
    assert reason.startswith("weak match:")
    assert "below the threshold 0.500" in reason


@given(st.floats(-1, 1, width=32), st.floats(-1, 1))
def test_auto_is_a_comparison(similarity: float, threshold: float) -> None:
    source, _ = choose(match(similarity), "auto", PolicySettings(threshold=threshold))
    assert source == ("hybrid" if similarity >= threshold else "stability")


@given(st.floats(-1, 1, width=32), st.floats(-1, 1), st.floats(0, 1), st.floats(1, 2048))
def test_the_priors_worth_grows_from_the_threshold_to_the_strong_match(
    similarity: float, threshold: float, width: float, n0: float
) -> None:
    settings = PolicySettings(threshold=threshold, strong=threshold + width, n0=n0)
    worth = settings.n0_at(similarity)
    if similarity < threshold:
        assert worth == 0
    elif similarity >= settings.strong:
        assert worth == n0
    else:
        assert worth / n0 == pytest.approx((similarity - threshold) / width, abs=1e-6)
        source, reason = choose(match(similarity), "auto", settings)
        assert (source, reason[:11]) == ("hybrid", "fair match:")


@given(st.floats(0, 1), st.integers(1, 600))
def test_what_disagrees_more_than_usual_is_worth_less(doubt: float, tokens: int) -> None:
    settings = PolicySettings(threshold=0.1, strong=0.1, n0=256.0, doubt=0.05, doubt_fall=0.75)
    usual = 0.05 * (64 / tokens) ** 0.75
    worth = settings.n0_at(0.5, doubt, tokens)
    assert worth == (256.0 if doubt <= usual else pytest.approx(256 * (usual / doubt) ** 3))
    assert PolicySettings(n0=256.0, threshold=0.1, strong=0.1).n0_at(0.5, doubt, 1) == 256  # by default nothing doubts


@pytest.mark.parametrize("policy", EXPLICIT)
@pytest.mark.parametrize("similarity", [-1.0, BELOW, 0.5, 1.0])
def test_what_was_asked_for_is_used(policy: Policy, similarity: float) -> None:
    source, reason = choose(match(similarity), policy, AT)
    assert source == policy
    assert reason.startswith(f"{policy} was asked for; similarity {similarity:.3f} to cluster 7")
    assert ("weak match" in reason) == (similarity < 0.5)


@pytest.mark.parametrize("policy", get_args(Policy))
@pytest.mark.parametrize("similarity", [BELOW, 0.5, 0.7])
def test_a_threshold_that_was_not_calibrated_is_said_to_be_none(policy: Policy, similarity: float) -> None:
    settings = PolicySettings(threshold=0.5, strong=0.6)
    source, reason = choose(match(similarity), policy, settings)
    guessed = choose(match(similarity), policy, settings, calibrated=False)
    assert guessed[0] == source
    assert "calibrated" not in reason
    if "threshold" in reason or policy == "auto":
        end = ")" * reason.endswith(")")
        assert guessed[1] == reason.removesuffix(end) + ", which was not calibrated" + end
    else:
        assert guessed[1] == reason


@pytest.mark.parametrize(
    ("found", "known"),
    [
        ({}, True), ({"held_out_passages": 3}, True), ({"threshold_rule": "quantile", "held_out_passages": 20}, True),
        ({"threshold_rule": "quantile", "held_out_passages": 19}, False), ({"threshold_rule": "quantile"}, True),
        ({"threshold_rule": GUESSED, "held_out_passages": 512}, False), ({"threshold_rule": GUESSED}, False),
        ({"threshold_rule": [7], "held_out_passages": "many"}, True),
    ],
)  # fmt: skip
def test_an_artifact_says_whether_its_threshold_is_a_guess(whole: Path, found: dict[str, Any], known: bool) -> None:
    """In a prediction's reason, for people and for programs, and in a route."""
    made = replace(Artifact.load(whole), calibration=found)
    near = Match(np.array([3, 1]), np.array([0.9, 0.1], np.float32))
    planned = plan(made, near, "auto", 0.3)
    planned.finish(shares(1)[0], 16)
    found_out = planned.prediction
    for said in (prediction_row("Words.", found_out, False)["reason"], in_lines(made, "Words.", found_out)):
        assert "reaches the threshold 0.300" in said
        assert ("reaches the threshold 0.300, which was not calibrated" in said) == (not known)
    assert row_of(route_of(made, near, 3))["calibrated"] == known


def test_similarity_needs_no_prompt_and_stability_no_prior() -> None:
    one = np.array([[0.2, 0.8]])
    assert score("similarity", one, None, 0, 256.0) is one
    assert score("stability", None, one, 9, 256.0) is one
    for source, prior, prompt in (("similarity", None, one), ("stability", one, None), ("hybrid", None, one)):
        with pytest.raises(AssertionError):
            score(source, prior, prompt, 9, 256.0)  # type: ignore[arg-type]


def test_hybrid_by_hand() -> None:
    prior, prompt = np.array([[0.5, 0.5, 0.0]]), np.array([[0.0, 0.2, 0.8]])
    got = score("hybrid", prior, prompt, 30, 10.0)
    assert got == pytest.approx(np.array([[5 / 40, (6 + 5) / 40, 24 / 40]]))


@given(ranked(), st.integers(1, 4096), st.data())
def test_hybrid_has_the_other_two_as_limits(pair: tuple[Floats, Floats], tokens: int, data: st.DataObject) -> None:
    prior, prompt = pair
    budgets = np.full(len(prior), data.draw(st.integers(1, prior.shape[1])))
    for n0, source in ((1e12, "similarity"), (0.0, "stability")):
        limit = score("hybrid", prior, prompt, tokens, n0)
        end = score(source, prior, prompt, tokens, n0)  # type: ignore[arg-type]
        assert limit == pytest.approx(end, abs=1e-8)
        assert top(limit, budgets) == top(end, budgets)


@given(ranked(), st.integers(1, 4096), st.floats(0, 1e5), st.floats(0, 1e5))
def test_more_weight_moves_every_score_towards_the_prior(
    pair: tuple[Floats, Floats], tokens: int, a: float, b: float
) -> None:
    prior, prompt = pair
    less, more = (score("hybrid", prior, prompt, tokens, n0) for n0 in sorted((a, b)))
    assert (np.abs(more - prior) <= np.abs(less - prior) + 1e-12).all()
    assert (np.abs(less - prompt) <= np.abs(more - prompt) + 1e-12).all()
    assert less.sum(-1) == pytest.approx(1)
    longer = score("hybrid", prior, prompt, 2 * tokens, min(a, b))  # a longer prompt counts more
    assert (np.abs(longer - prompt) <= np.abs(less - prompt) + 1e-12).all()


@given(ranked(), st.data())
def test_a_neuron_that_scores_higher_stays(pair: tuple[Floats, Floats], data: st.DataObject) -> None:
    scores, raised = pair[0], pair[0].copy()
    budgets = np.full(len(scores), data.draw(st.integers(1, scores.shape[1])))
    neuron = data.draw(st.sampled_from(top(scores, budgets).layers[0].tolist()))
    raised[0, neuron] *= 1 + data.draw(st.floats(0, 10))
    assert neuron in top(raised, budgets).layers[0]
    assert top(raised, budgets).per_layer == budgets.tolist()
