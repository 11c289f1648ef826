"""From what was observed to findings: means, pairs of texts, the paper's values beside ours, in words."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
from plain_sets import dice, members

from coreinfer.errors import CoreInferError
from pipeline.analysis import paper
from pipeline.analysis.bits import pack
from pipeline.analysis.findings import findings, means, pairs_of
from pipeline.analysis.observe import Observed
from pipeline.analysis.plan import Plan
from pipeline.analysis.records import Findings, Pairs
from pipeline.analysis.table import paper_words

PLAN, TEXTS, LAYERS, WIDTH = Plan(prompt_tokens=8, continuation_tokens=24), 12, 3, 70
GROWTHS = PLAN.growths(512)


def observed(stable: float = 0.7, short: bool = False) -> Observed:
    """Every text alike, but for its sets; every growth's overlap is ``stable``, by energy 0.1 more.

    ``short``: overlaps beyond 100 tokens are unknown.
    """
    rng = np.random.default_rng(0)
    values = [np.nan if short and prompt + more > 100 else stable for prompt, more in GROWTHS]
    return Observed(
        np.tile(np.linspace(0.5, 0.4, len(PLAN.distances)), (TEXTS, 1)), np.linspace(0.3, 0.4, TEXTS),
        np.tile(np.linspace(0.4, 1.0, len(PLAN.windows)), (TEXTS, 1)),
        np.tile([values, np.add(values, 0.1)], (TEXTS, 1, 1)), pack(rng.random((TEXTS, 2, LAYERS, WIDTH)) < 0.4),
    )  # fmt: skip


def found(seen: Observed, vary: bool = True) -> tuple[Findings, Pairs]:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((TEXTS, 5)) if vary else np.ones((TEXTS, 5))
    pairs = pairs_of(seen, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    costs = np.linspace(3, 4, TEXTS), rng.random((TEXTS, len(PLAN.points)))
    return findings(PLAN, seen, costs, pairs, 512), pairs


def test_means_leave_out_what_is_unknown() -> None:
    one, two, three = means(np.array([[1.0, np.nan, 5], [3, np.nan, np.nan]]), seed=0)
    assert one is not None
    assert three is not None
    assert (one.mean, one.texts, two) == (2.0, 2, None)
    assert (one.low, one.high) == (1.0, 3.0)
    assert (three.mean, three.low, three.texts) == (5.0, None, 1)


def test_pairs_are_all_pairs_of_texts_over_layers() -> None:
    seen = observed()
    masks = np.random.default_rng(0).random((TEXTS, 2, LAYERS, WIDTH)) < 0.4
    vectors = np.eye(TEXTS)
    vectors[4] = vectors[7] = np.eye(TEXTS)[2] * 0.6 + np.eye(TEXTS)[9] * 0.8
    pairs = pairs_of(seen, vectors)
    at = 0
    for i in range(TEXTS):
        for j in range(i + 1, TEXTS):
            assert pairs.cosines[at] == pytest.approx(vectors[i] @ vectors[j])
            for s in range(2):
                laps = [dice(members(masks[i, s, layer]), members(masks[j, s, layer])) for layer in range(LAYERS)]
                assert pairs.overlaps[s, at] == pytest.approx(np.mean(laps))
            at += 1
    assert at == len(pairs.cosines) == pairs.overlaps.shape[1]


def test_every_part_is_there_with_its_values() -> None:
    made, pairs = found(observed())
    assert made.dense_nll.mean == pytest.approx(3.5)
    assert [c.alpha for c in made.against_alpha] == PLAN.alphas
    assert {c.keep for c in made.against_alpha} == {0.4}
    assert [c.keep for c in made.against_keep] == PLAN.keeps
    both = [c.nll_rise for c in (*made.against_alpha, *made.against_keep) if (c.alpha, c.keep) == (0.4, 0.4)]
    assert both[0] == both[1]  # one point, in either sweep
    assert [n.distance for n in made.near] == [1, 2, 4, 8, 16]
    assert made.apart.mean == pytest.approx(0.35)
    assert [u.tokens for u in made.used] == [1, 2, 4, 8, 16]
    assert made.used[2].independent == pytest.approx(1 - 0.6**4)
    assert [(s.statistic, s.prompt_tokens, s.more_tokens) for s in made.stability] == [
        (statistic, *growth) for statistic in ("count", "energy") for growth in GROWTHS
    ]
    assert [s.overlap.mean for s in made.stability] == pytest.approx([0.7] * len(GROWTHS) + [0.8] * len(GROWTHS))
    assert [s.by_lot is None for s in made.stability] == [False] * len(GROWTHS) + [True] * len(GROWTHS)
    for similar, laps in zip(made.similarity, pairs.overlaps, strict=True):
        assert similar.spearman == pytest.approx(scipy.stats.spearmanr(pairs.cosines, laps).statistic)
    assert [s.pairs for s in made.similarity] == [66, 66]
    parts = np.array_split(np.sort(pairs.cosines), 8)
    assert [x for x, _ in made.similarity[1].bins] == pytest.approx([part.mean() for part in parts])


def test_json_has_six_digits_and_no_negative_zero() -> None:
    made, _ = found(observed())
    near = replace(made.apart, mean=-1e-9, low=0.12345678)
    assert replace(made, apart=near).as_json()["apart"] == {
        "mean": 0.0, "low": 0.123457, "high": round(near.high or 0, 6), "texts": TEXTS,
    }  # fmt: skip
    assert str(replace(made, apart=near).as_json()["apart"]["mean"]) == "0.0"


def test_disagreements_are_said_in_words() -> None:
    made, _ = found(observed(0.7))
    first, *rest = paper_words(made)
    assert first == f"{7 - len(rest)} of the paper's 7 values are met within 0.05; the others:"
    assert rest == made.disagreements
    assert "The overlap of the core set of 8 tokens and that of 64 more is 0.70, 0.13 above the paper's 0.57." in rest
    assert "The overlap of the core set of 256 tokens and that of 8 more is 0.70, 0.27 below the paper's 0.97." in rest
    assert not any("8 tokens and that of 8 more is" in words and "256" not in words for words in rest)  # 0.03 off


def test_what_was_not_measured_is_said() -> None:
    made, _ = found(observed(short=True), vary=False)
    assert max(s.prompt_tokens + s.more_tokens for s in made.stability) <= 100
    words = "No text has the 264 tokens to compare the core set of 256 tokens and that of 8 more; "
    assert f"{words}the paper's overlap is 0.97." in made.disagreements
    assert made.similarity[0].spearman is None
    assert "66 pairs of texts have no rank correlation: one of both columns does not vary." in made.disagreements


def test_agreement_is_said_too() -> None:
    made = replace(found(observed())[0], disagreements=[])
    assert paper_words(made) == ["7 of the paper's 7 values are met within 0.05."]


@pytest.mark.parametrize(
    ("ours", "said"),
    [
        (0.35, "0.06 below the paper's 0.41"),
        (0.36, None),
        (0.5, None),
        (0.71, None),
        (0.72, "0.06 above the paper's 0.41"),
    ],
)
def test_the_tolerance_reaches_beyond_the_papers_range(ours: float, said: str | None) -> None:
    words = paper.similarity_words(ours, 10)
    assert (words is None) == (said is None)
    if said and words:
        assert said.split(" the")[0] in words


@pytest.mark.parametrize(("ours", "agrees"), [(0.62, True), (0.72, True), (0.619, False), (0.721, False)])
def test_the_tolerance_of_stability(ours: float, agrees: bool) -> None:
    assert (paper.stability_words(8, 8, ours) is None) == agrees


def test_the_paper_says_nothing_of_other_prompts() -> None:
    assert paper.stability_words(64, 8, 0.1) is None


def test_a_plan_varies_each_share_while_the_other_is_fixed() -> None:
    plan = Plan(alpha=0.37, keep=0.9)
    assert len(plan.points) == len(set(plan.points)) == len(plan.alphas) + len(plan.keeps) - 1
    assert {alpha for alpha, keep in plan.points if keep != 0.9} == {0.37}
    assert (0.37, 0.9) in plan.points
    assert plan.distances == [1, 2, 4, 8, 16, 32, 64, 128]
    assert Plan(prompt_tokens=8, continuation_tokens=2).distances == [1, 2, 4, 8]
    assert plan.growths(100) == [(8, 8), (8, 32), (8, 64), (64, 8), (64, 32)]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"alpha": 0.0}, "--alpha is 0:"),
        ({"alpha": 1.1}, "--alpha is 1.1:"),
        ({"alpha": float("nan")}, "--alpha is nan:"),
        ({"keep": -1.0}, r"--keep \(beta\) is -1:"),
        ({"prompt_tokens": 0}, "--prompt-tokens is 0:"),
        ({"continuation_tokens": 1}, "--continuation-tokens is 1:"),
        ({"seed": -1}, "--seed is -1:"),
    ],
)
def test_impossible_plans_are_refused(wrong: dict[str, float], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        Plan(**wrong)  # type: ignore[arg-type]
