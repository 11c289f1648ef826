"""The parts of the ladder that need no language model: intervals, fused ranks, rows, resuming, texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_corpus
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from coreinfer import CoreInferError, Engine
from coreinfer.evaluate import LADDER, Plan, Results, Rungs, Text, rows_of
from coreinfer.evaluate.bootstrap import intervals
from coreinfer.evaluate.partial import Partial, key_of
from coreinfer.evaluate.policies import GRIFFIN, PAPER, rank_fusion
from coreinfer.match import Match
from pipeline.sources import SourceSettings
from pipeline.texts import evenly, read_texts

Floats = NDArray[np.float64]
scores = arrays(np.float64, (2, 7), elements=st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.9]))


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


def some_results(domains: list[str | None], policies: tuple[str, ...] = ("global", "auto")) -> Results:
    rng, n = np.random.default_rng(0), len(domains)
    plan = Plan((0.4, 0.2), (8, 16), 8, policies)
    texts = [Text(f"t{i}", np.zeros(24, np.int32), domain) for i, domain in enumerate(domains)]
    pairs = [(keep, policy) for keep in plan.keeps for policy in policies]
    sources = np.array([["hybrid", "stability"][i % 2] for i in range(n)] * 2).reshape(2, n)
    return Results(
        plan, texts, pairs, rng.random((2, n)), rng.random((2, 4, n, 4)), rng.random((2, 4, n, 1)), sources,
        rng.random((2, n)),
    )  # fmt: skip


def test_domains_average_to_the_whole(engine: Engine) -> None:
    rows = rows_of(some_results(["a", "b", "a", "c", None, "a", "b"]), Rungs(engine, ("global", "auto")))
    assert len(rows) == 5 * 2 * 5  # whole and four domains; prompt lengths; dense and the rungs
    for whole in (row for row in rows if row.domain is None):
        key = (whole.policy, whole.keep, whole.prompt_tokens)
        parts = [r for r in rows if r.domain is not None and (r.policy, r.keep, r.prompt_tokens) == key]
        assert [(part.domain, part.texts) for part in parts] == [("(none)", 1), ("a", 3), ("b", 2), ("c", 1)]
        for name in ("nll", "nll_rise", "kl", "agreement", "recall", "diff_auto", "share_hybrid"):
            values = [getattr(part, name) for part in parts]
            if getattr(whole, name) is None:
                assert values == [None] * 4
                continue
            mean = sum(part.texts * value for part, value in zip(parts, values, strict=True)) / whole.texts
            assert getattr(whole, name) == pytest.approx(mean, abs=3e-6)
        assert [part.ci_low is None for part in parts] == [True, False, False, True]


def test_rows_are_means_of_their_own_numbers(engine: Engine) -> None:
    results = some_results(["a"] * 5)
    rows = rows_of(results, Rungs(engine, ("global", "auto")))
    assert [row.domain for row in rows] == [None] * 10  # one domain says nothing
    for row in rows:
        p = results.plan.prompt_tokens.index(row.prompt_tokens)
        if row.policy == "dense":
            assert row.nll == pytest.approx(results.nll[p].mean(), abs=1e-6)
            continue
        mine = results.numbers[p, results.rungs.index((row.keep, row.policy))]
        auto = results.numbers[p, results.rungs.index((row.keep, "auto"))]
        assert (row.nll_rise, row.kl, row.agreement, row.recall) == pytest.approx(mine.mean(0), abs=1e-6)
        assert row.diff_auto == pytest.approx((mine - auto)[:, 0].mean(), abs=1e-6)


def test_without_auto_there_is_no_difference(engine: Engine) -> None:
    rows = rows_of(some_results(["a"] * 3, ("global", "oracle")), Rungs(engine, ("global", "oracle")))
    assert {(row.diff_auto, row.diff_low, row.diff_high) for row in rows} == {(None, None, None)}


def test_finished_batches_are_found_again(tmp_path: Path) -> None:
    key, other = key_of({"keeps": [0.4], "x": 1}), key_of({"keeps": [0.4], "x": 2})
    first = Partial(tmp_path, key)
    assert first.done == {}
    for number in (0, 1):
        first.add(number, {"batch": number, "nll": [[0.1 + number, 1 / 3]]})
    assert Partial(tmp_path, other).done == {}
    assert Partial(tmp_path, key_of({"x": 1, "keeps": [0.4]})).done == first.done
    first.forget()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [1, 5, 20])
def test_a_torn_line_is_dropped(tmp_path: Path, cut: int) -> None:
    made = Partial(tmp_path, "k")
    for number in (0, 1):
        made.add(number, {"batch": number, "nll": [[0.1]]})
    made.path.write_bytes(made.path.read_bytes()[:-cut])
    again = Partial(tmp_path, "k")
    assert list(again.done) == [0]
    again.add(1, {"batch": 1, "nll": [[0.1]]})
    assert list(Partial(tmp_path, "k").done) == [0, 1]


def words(count: int) -> str:
    return " ".join(["word"] * count)


def split(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
    """A tokenizer: a token a word."""
    return {"input_ids": [[len(word) for word in text.split()] for text in texts]}


PLAN = Plan((0.4,), (4, 8), 10)


def test_short_texts_are_counted_and_left_out(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(n) for n in (18, 17, 30, 6, 18)])
    found = read_texts(SourceSettings(str(corpus)), PLAN, split)
    assert [text.name for text in found.texts] == ["c.jsonl:1", "c.jsonl:3", "c.jsonl:5"]
    assert (found.seen, found.short) == (5, 2)
    assert {len(text.ids) for text in found.texts} == {18}


@pytest.mark.parametrize("long", [0, 1])
def test_too_few_are_refused_with_their_number(tmp_path: Path, long: int) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(17)] * 3 + [words(18)] * long)
    with pytest.raises(CoreInferError, match=rf"^{long} of {3 + long} texts of .*c.jsonl' have the 18 tokens"):
        read_texts(SourceSettings(str(corpus)), PLAN, split)


def numbered(count: int) -> list[Text]:
    return [Text(str(i), np.zeros(1, np.int32)) for i in range(count)]


@pytest.mark.parametrize(("count", "limit"), [(10, 3), (320, 64), (100_000, 7), (50_000, 500), (5, 9), (0, 3), (9, 1)])
def test_a_limit_takes_texts_evenly(count: int, limit: int) -> None:
    picks = [int(text.name) for text in evenly(numbered(count), limit)]
    assert len(picks) == min(count, limit)
    assert picks == sorted(set(picks))
    if count > limit > 1:
        gaps = np.diff([*picks, count])
        assert picks[0] == 0
        assert gaps.max() <= 2 * count / limit
        assert picks[-1] >= count - 1 - count / limit


def test_without_a_limit_all_are_taken() -> None:
    assert len(evenly(numbered(10_000), None)) == 10_000


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_domains_are_found(tmp_path: Path, kind: str) -> None:
    rows = [{"text": words(20), "topic": "x", "domain": "a", "mine": "m", "number": 3} for _ in range(4)]
    rows[1].update(domain="b", mine=None, number=4)
    rows[2].update(text=words(3))
    source = SourceSettings(str(write_rows(tmp_path / f"c.{kind}", rows)))
    assert [t.domain for t in read_texts(source, PLAN, split).texts] == ["a", "b", "a"]
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="topic").texts] == ["x"] * 3
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="mine").texts] == ["m", None, "m"]
    assert [t.domain for t in read_texts(source, PLAN, split, domain_column="number").texts] == ["3", "4", "3"]
    assert [t.domain for t in read_texts(source, PLAN, split, limit=2).texts] == ["a", "a"]
    with pytest.raises(CoreInferError, match=r"no domain in a column 'none': .* --domain-column"):
        read_texts(source, PLAN, split, domain_column="none")


def test_no_domain_column_is_fine(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c.jsonl", [words(20)] * 2)
    found = read_texts(SourceSettings(str(corpus)), PLAN, split)
    assert [text.domain for text in found.texts] == [None, None]
    txt = tmp_path / "c.txt"
    txt.write_text(f"{words(20)}\n\n{words(20)}\n")
    assert len(read_texts(SourceSettings(str(txt)), PLAN, split).texts) == 2
