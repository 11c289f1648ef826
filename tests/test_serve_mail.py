"""What the engine's thread tells reaches the event loop in fewer messages, and nothing is lost of it."""

import asyncio
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from coreinfer.serve.jobs import Ended, Event, Piece
from coreinfer.serve.logprobs import Chances
from coreinfer.serve.mail import Box, Mail, fewer

CHANCES = Chances(1, -0.5, [])
PIECES = st.builds(Piece, st.integers(0, 1), st.text(max_size=3), st.sampled_from([None, None, CHANCES]))
ENDS = st.builds(lambda number: Ended(number, "length", 3, 0.0, 0.0, 0.0), st.integers(0, 1))
BOXES: list[Box] = [asyncio.Queue() for _ in range(3)]
HELD = st.lists(st.tuples(st.sampled_from(BOXES), PIECES | ENDS), max_size=20)


def of(held: list[tuple[Box, Event]], box: Box) -> list[Event]:
    return [event for to, event in held if to is box]


def flat(events: list[Event]) -> list[object]:
    """Characters, ends and probabilities in their order, and how many tokens there were."""
    tokens, out = 0, list[object]()
    for event in events:
        if isinstance(event, Piece):
            tokens += event.tokens
            out += [(event.number, char) for char in event.text]
            out += [event.chances] if event.chances else []
        else:
            out.append(event)
    return [tokens, *out]


@given(HELD)
def test_nothing_is_lost_or_told_in_another_order(held: list[tuple[Box, Event]]) -> None:
    made = fewer(held)
    for box in BOXES:
        assert flat(of(made, box)) == flat(of(held, box))
        for a, b in pairwise(of(made, box)):
            alike = isinstance(a, Piece) and isinstance(b, Piece) and a.number == b.number
            assert not alike or CHANCES in (a.chances, b.chances)  # type: ignore[union-attr]


def test_a_message_may_bring_several_tokens() -> None:
    async def sent() -> list[Event]:
        box: Box = asyncio.Queue()
        mail = Mail(asyncio.get_running_loop())
        tell = mail.to(box)
        for text in ("a", "", "bc"):
            tell(Piece(0, text))
        mail.flush()
        mail.flush()
        await asyncio.sleep(0)
        return [box.get_nowait() for _ in range(box.qsize())]

    assert asyncio.run(sent()) == [Piece(0, "abc", None, 3)]
