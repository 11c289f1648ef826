"""Tokens to text that can be sent: all pieces are the whole text, cut before the first stop string."""

from collections.abc import Sequence
from itertools import zip_longest

from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from coreinfer.paths import DEMO_LM
from coreinfer.serve.words import Words

TOKENIZER: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(DEMO_LM)
SIZE = len(TOKENIZER)


def decode(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))


def letters(tokens: list[int]) -> str:
    return "".join(chr(97 + token) for token in tokens)


def pieces(words: Words, tokens: list[int], asked: Sequence[bool] = ()) -> list[str]:
    """What it says after each token, or only after those where it is ``asked``."""
    out = list[str]()
    for token, ask in zip_longest(tokens, asked[: len(tokens)], fillvalue=True):
        words.take(int(token))
        out += [words.said()] if ask else []
        if words.stopped:
            return out
    return [*out, words.said(), words.rest()]


@given(st.lists(st.integers(0, SIZE - 1), max_size=90), st.lists(st.booleans(), max_size=90))
def test_all_pieces_are_the_text_of_all_tokens(tokens: list[int], asked: list[bool]) -> None:
    assert "".join(pieces(Words(decode), tokens, asked)) == decode(tokens)


@settings(max_examples=40)
@given(st.text(max_size=40), st.lists(st.booleans(), max_size=40))
def test_a_piece_never_ends_within_a_character(text: str, asked: list[bool]) -> None:
    tokens = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    made = pieces(Words(decode), tokens, asked)
    assert "".join(made) == decode(tokens)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in made)


@given(st.lists(st.integers(0, 2), max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_it_ends_before_the_first_stop(tokens: list[int], stops: list[str]) -> None:
    words, text = Words(letters, stops), letters(tokens)
    sent = "".join(pieces(words, tokens))
    ends = [text.index(stop) + len(stop) for stop in stops if stop in text]
    if not ends:
        assert (sent, words.stopped) == (text, False)
        return
    seen = text[: min(ends)]  # a token is a letter here: what is known when the first stop string is whole
    assert words.stopped
    assert sent == seen[: min(seen.find(stop) for stop in stops if stop in seen)]


def test_only_what_may_begin_a_stop_is_held() -> None:
    words = Words(lambda tokens: "".join("axb"[token] for token in tokens), ["xy"])
    assert pieces(words, [0, 1, 1, 0, 2, 1]) == ["a", "", "x", "xa", "b", "", "", "x"]
