"""Sizes as people write them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreinfer import CoreInferError
from coreinfer.memory.sizes import parse_size, size_in_words

POWERS = {"K": 1, "M": 2, "G": 3, "T": 4}


@given(st.integers(1, 4096), st.sampled_from("KMGT"), st.booleans(), st.booleans())
def test_whole_numbers(number: int, letter: str, binary: bool, space: bool) -> None:
    text = f"{number}{' ' * space}{letter}{'iB' if binary else 'B'}"
    assert parse_size(text) == number * (1024 if binary else 1000) ** POWERS[letter]


def test_parts_of_a_unit() -> None:
    assert parse_size("1.5GB") == 1_500_000_000
    assert parse_size("0.25GiB") == 1 << 28
    assert parse_size(" 800MiB ") == 800 << 20


def test_words_have_a_space() -> None:
    assert [size_in_words(size) for size in (1, 1 << 30, 1363148800)] == ["0.1 MiB", "1.00 GiB", "1.27 GiB"]


@given(st.integers(1, 1 << 50))
def test_words_are_enough_and_hardly_more(size: int) -> None:
    said = parse_size(size_in_words(size))
    assert size <= said <= max(size * 1.01, size + (1 << 20) / 9)


@given(st.text(max_size=12) | st.text("0123456789.- KMGTiB", max_size=9))
def test_anything_else_is_one_line(text: str) -> None:
    if re.fullmatch(r"[0-9]+([.][0-9]+)? ?[KMGT]i?B", text.strip()) and float(
        text.strip().split("B")[0].rstrip("iKMGT ")
    ):
        assert parse_size(text) > 0
        return
    with pytest.raises(CoreInferError) as refusal:
        parse_size(text)
    assert str(refusal.value) == f"the memory is {text!r}: give a size such as 12GiB, 800MiB or 1.5GB"


@pytest.mark.parametrize(
    "text", ["", "12", "GiB", "12gib", "-1GiB", "1e3MiB", "12 Gb", "0GiB", "nanGiB", "١GiB", "1" * 400 + "GiB"]
)
def test_these_are_none(text: str) -> None:
    with pytest.raises(CoreInferError, match="the memory is"):
        parse_size(text)
