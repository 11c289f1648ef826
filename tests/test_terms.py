"""c-TF-IDF against a transcription of its formula, and on a corpus whose words are obvious."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import terms
from pipeline.passages import Passage, write_passages
from pipeline.terms import sample_texts, top_terms

SAILING = ["The boat left the harbour.", "A boat and its sails.", "The sails were torn, the harbour was near."]
BAKING = ["Bread needs flour and yeast.", "Flour, water, yeast.", "The bread was baked with flour."]


def slow_scores(texts: list[list[str]]) -> list[dict[str, float]]:
    """Grootendorst 2022, eq. 1: tf in the class * log(1 + A / f), a passage counting a word once."""
    classes = [Counter(word for text in group for word in set(text.split())) for group in texts]
    total = sum(classes, Counter[str]())
    average = sum(total.values()) / len(classes)
    return [
        {word: n / c.total() * math.log(1 + average / total[word]) for word, n in c.items()} if c else {}
        for c in classes
    ]


def test_obvious_words() -> None:
    sailing, baking = top_terms([SAILING, BAKING], 3)
    assert set(sailing) == {"boat", "harbour", "sails"}
    assert baking[0] == "flour"
    assert set(baking) == {"flour", "bread", "yeast"}


words = st.sampled_from(["river", "boat", "engine", "wheel", "piano", "violin", "bread", "flour", "planet", "comet"])
passages = st.lists(words, min_size=1, max_size=6).map(" ".join)


@given(st.lists(st.lists(passages, max_size=5), min_size=1, max_size=4).filter(any), st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_scores_are_the_formula(texts: list[list[str]], count: int) -> None:
    for got, scores in zip(top_terms(texts, count), slow_scores(texts), strict=True):
        best = sorted(scores.values(), reverse=True)[:count]
        assert len(set(got)) == len(got)
        assert [scores[word] for word in got] == pytest.approx(best)


def test_ties_are_in_the_order_of_the_alphabet() -> None:
    assert top_terms([["wheel boat piano"], ["comet"]]) == [["boat", "piano", "wheel"], ["comet"]]


@pytest.mark.parametrize("texts", [[], [[]], [[], []], [["the and of", "to be or not"], ["it is, 12 a b"]]])
def test_nothing_but_stop_words_gives_no_terms(texts: list[list[str]]) -> None:
    assert top_terms(texts) == [[] for _ in texts]


def test_a_cluster_without_words_beside_others() -> None:
    assert top_terms([["piano violin"], [], ["the 42"]]) == [["piano", "violin"], [], []]


def test_other_scripts_are_words() -> None:
    made = top_terms([["Музыка и Скрипка", "музыка скрипка"], ["Crème brûlée für Köche"], ["東京都庁 駅前広場"]])
    assert set(made[0]) == {"музыка", "скрипка"}
    assert set(made[1]) == {"crème", "brûlée", "für", "köche"}
    assert set(made[2]) == {"東京都庁", "駅前広場"}


def test_what_is_no_word() -> None:
    text = "Don't couldn’t R2D2 under_score 1990s ok https://example.com/secret www.hidden.org violin's VIOLIN violin."
    assert top_terms([[text], ["comet"]])[0] == ["violin"]


def test_words_of_form_name_no_topic() -> None:
    texts = [[f"answer {word}"] * 20 for word in ("piano", "bread", "comet", "river", "wheel", "boat", "engine")]
    made = top_terms(texts)
    assert [row[0] for row in made] == ["piano", "bread", "comet", "river", "wheel", "boat", "engine"]
    assert not any("answer" in row for row in made)
    assert "answer" in top_terms([group[:2] for group in texts])[0]  # too few passages to tell


def test_a_large_corpus_without_a_telling_word_gives_no_terms() -> None:
    assert top_terms([["answer"] * 60, ["answer"] * 60]) == [[], []]


def test_a_few_texts_of_each_cluster_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terms, "PER_CLUSTER", 2)
    monkeypatch.setattr("pipeline.passages.WINDOW", 3)
    write_passages((Passage(i, f"text {i}", "here") for i in range(9)), tmp_path / "p.parquet")
    labels = np.array([1, 0, -1, 1, 1, 0, 0, -1, 3])
    seen: list[set[str]] = [set(), set(), set()]
    for seed in range(20):
        made = sample_texts(tmp_path / "p.parquet", labels, 4, seed)
        assert made == sample_texts(tmp_path / "p.parquet", labels, 4, seed)
        assert [len(group) for group in made] == [2, 2, 0, 1]
        assert all(group == sorted(group) for group in made)  # in the corpus's order
        for all_seen, group in zip(seen, made, strict=False):
            all_seen.update(group)
    assert seen == [{"text 1", "text 5", "text 6"}, {"text 0", "text 3", "text 4"}, set()]
    assert made[3] == ["text 8"]  # the one passage of a small cluster; held-out ones never
