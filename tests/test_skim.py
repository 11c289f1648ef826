"""Texts read once: what stays is compared with what having all of them would give."""

import tracemalloc
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import skim
from pipeline.skim import SOME, Skim


def read(texts: list[str]) -> Skim:
    made = Skim()
    made.read(iter(texts))
    return made


@given(st.lists(st.text("aé東🍕", max_size=9), max_size=40), st.randoms(use_true_random=False))
def test_bytes_and_the_longest_are_those_of_all_texts_in_any_order(texts: list[str], random: Random) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skim, "LONGEST", 5)
        for _ in range(2):
            made = read(texts)
            assert made.bytes == len("".join(texts).encode())
            assert sorted(made.longest) == sorted((len(text.encode()), text) for text in texts)[-5:]
            assert made.some == texts
            random.shuffle(texts)


@pytest.mark.parametrize("count", [SOME + 1, 5000, 40_000])
def test_some_are_from_everywhere(count: int) -> None:
    """Of texts sorted by length, the mean length of some is that of all."""
    made = read(["x" * (i * 400 // count) for i in range(count)])
    sizes = [len(text) for text in made.some]
    assert (len(sizes), sizes) == (SOME, sorted(sizes))
    assert np.mean(sizes) == pytest.approx(200, rel=0.02)


def test_memory_does_not_grow_with_the_texts() -> None:
    tracemalloc.start()
    try:
        made = Skim()
        made.read(f"{i:300}" for i in range(40_000))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert made.bytes == 12_000_000
    assert most < 5_000_000


def test_a_text_of_many_tokens_and_few_bytes_is_looked_at() -> None:
    made = read(["word " * 60] * 1000 + ["1" * 200] * 1000)
    assert {"word " * 60, "1" * 200} <= set(made.telling)
