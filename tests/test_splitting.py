"""Long texts become the fewest pieces, equally long; nothing but whitespace is lost."""

import re
from itertools import pairwise

import pytest
from corpora import Tokens, words
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.errors import CoreInferError
from pipeline.splitting import _even_cuts, split_text

ALPHABET = st.text(st.sampled_from("ab .!?\n\t\"')。！」é😀\u2003\x1c"), max_size=300)


def characters(texts: list[str]) -> list[int]:
    return [len(text) for text in texts]


def with_ends(texts: list[str]) -> list[int]:
    """Like a tokenizer that adds a start and an end: units count more than they do together."""
    return [len(text) + 2 for text in texts]


def superadditive(texts: list[str]) -> list[int]:
    """Units count less than they do together."""
    return [len(text) + text.count(" ") * 3 for text in texts]


def test_sentences_stay_whole_and_pieces_are_even() -> None:
    text = " ".join(f"Sentence number {n} here." for n in range(11))  # 44 words
    pieces = split_text(text, 20, words)
    assert words(pieces) == [16, 12, 16]
    assert " ".join(pieces) == text
    assert all(piece.endswith(".") for piece in pieces)


def test_a_little_too_much_does_not_leave_a_tiny_last_piece() -> None:
    assert words(split_text("Yes it is. " * 86, 256, words)) == [129, 129]


def test_long_sentences_break_at_whitespace_and_long_words_inside() -> None:
    pieces = split_text("one two three four five six seven", 3, words)
    assert " ".join(pieces) == "one two three four five six seven"
    assert max(words(pieces)) <= 3
    pieces = split_text("x" * 1000, 64, characters)
    assert "".join(pieces) == "x" * 1000
    assert min(characters(pieces)) > 30


def test_chinese_sentences_need_no_whitespace() -> None:
    pieces = split_text("今天天气很好。我们去公园吧！你来吗？" * 3, 20, characters)
    assert all(piece[-1] in "。！？" for piece in pieces)


def test_a_character_above_the_limit_is_refused() -> None:
    with pytest.raises(CoreInferError, match="--passage-tokens is 2"):
        split_text("abc", 2, with_ends)


def test_long_texts_take_few_calls() -> None:
    calls: list[int] = []

    def count(texts: list[str]) -> list[int]:
        calls.append(len(texts))
        return words(texts)

    pieces = split_text("This sentence has six words here. " * 20_000, 256, count)
    assert len(pieces) == -(-120_000 // 252)
    assert len(calls) == 2


@pytest.mark.parametrize(
    "run", ["." * 200_000, ")" * 200_000, "\n" * 200_000, ".)" * 100_000, "。" * 200_000, " \n" * 90_000]
)
def test_runs_of_marks_cost_no_quadratic_time(run: str) -> None:
    pieces = split_text(f"a.{run}b", 5_000, characters)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", f"a.{run}b")


@given(ALPHABET, st.integers(3, 40), st.sampled_from([characters, with_ends, superadditive]))
def test_splitting_loses_only_whitespace_and_keeps_to_the_limit(text: str, most: int, count: Tokens) -> None:
    pieces = split_text(text, most, count)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(piece == piece.strip() and piece for piece in pieces)
    assert max(count(pieces), default=0) <= most


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(1, 9))
def test_any_text_by_words(text: str, most: int) -> None:
    pieces = split_text(text, most, words)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert max(words(pieces), default=0) <= most


@given(st.lists(st.integers(0, 10), min_size=1, max_size=60))
def test_cuts_are_the_fewest_and_none_is_too_long(sizes: list[int]) -> None:
    cuts = _even_cuts(sizes, 10)
    groups = [sum(sizes[a:b]) for a, b in pairwise(cuts)]
    fewest, filled = 1, 0
    for size in sizes:
        fewest, filled = (fewest, filled + size) if filled + size <= 10 else (fewest + 1, size)
    assert max(groups) <= 10
    assert sum(groups) == sum(sizes)
    assert len(groups) == fewest
