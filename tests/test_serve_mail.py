"""What the engine's thread tells reaches the event loop in its order, and a text tells of several tokens at once."""

import asyncio
from types import SimpleNamespace
from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st

from coreinfer.decode.continuing import Sampling
from coreinfer.neurons import every
from coreinfer.serve.jobs import Ended, Event, Job, Piece, Wish
from coreinfer.serve.joining import Waits
from coreinfer.serve.mail import Box, Mail
from coreinfer.serve.texts import Text
from coreinfer.serve.words import Words

LETTERS = "abcx"
END = len(LETTERS)
EVENTS: list[Event] = [Piece(0, "a"), Piece(0, "bc", None, 2), Ended(0, "length", 3, 0.0, 0.0, 0.0)]


def decode(tokens: list[int]) -> str:
    return "".join(LETTERS[token] for token in tokens)


def a_text(told: list[Event], most: int, stops: tuple[str, ...] = (), logprobs: int | None = None) -> Text:
    wish = Wish("auto", None, False, Sampling(), 0, most, stops, logprobs)
    job, neurons = Job([], 1, wish, told.append, float("inf")), every(1, 4)
    return Text(job, 0, Waits(neurons.mask().reshape(-1)), neurons, Words(decode, stops), most, 512, 0.0, 0.0)


def made(tokens: list[int], says: list[bool], **wish: Any) -> tuple[list[Piece], str | None, int]:
    """Pieces, why it ended, and how many tokens it took, of a text that is asked to ``say`` after some."""
    told, logits = list[Event](), torch.zeros(len(LETTERS) + 1)
    text, why = a_text(told, **wish), None
    for token, asked in zip(tokens, says, strict=True):
        if (why := text.take(token, logits, frozenset({END}))) is not None:
            break
        if asked:
            text.say()
    if why is None:
        text.say(last=True)
    assert all(isinstance(one, Piece) for one in told)
    return told, why, len(text.made)  # type: ignore[return-value]


@given(
    st.lists(st.tuples(st.integers(0, END), st.booleans()), max_size=20), st.sampled_from([(), ("bx",), ("x", "ab")])
)
def test_it_says_the_same_however_often_it_is_asked(steps: list[tuple[int, bool]], stops: tuple[str, ...]) -> None:
    tokens, says = [token for token, _ in steps], [asked for _, asked in steps]
    often, why, count = made(tokens, [True] * len(tokens), most=15, stops=stops)
    seldom = made(tokens, says, most=15, stops=stops)
    assert seldom[1:] == (why, count)
    assert "".join(one.text for one in seldom[0]) == "".join(one.text for one in often)
    assert sum(one.tokens for one in seldom[0]) == count


def test_each_token_with_its_chances_is_told_by_itself() -> None:
    pieces, _, _ = made([0, 1, 2, END], [False] * 4, most=15, logprobs=2)
    assert [(one.text, one.tokens, one.chances is None) for one in pieces] == [
        ("a", 1, False), ("b", 1, False), ("c", 1, False), ("", 1, True),
    ]  # fmt: skip


def test_one_message_brings_all_that_was_told() -> None:
    async def sent() -> tuple[list[Event], int]:
        loop, calls = asyncio.get_running_loop(), list[Any]()
        box: Box = asyncio.Queue()
        counting: Any = SimpleNamespace(is_closed=loop.is_closed, call_soon_threadsafe=lambda *call: calls.append(call))
        mail = Mail(counting)
        tell = mail.to(box)
        for event in EVENTS:
            tell(event)
        mail.flush()
        mail.flush()
        for call, *events in calls:
            call(*events)
        return [box.get_nowait() for _ in range(box.qsize())], len(calls)

    assert asyncio.run(sent()) == (EVENTS, 1)
