"""Events from the engine's thread to the event loop: one wake-up for all that a step told."""

import asyncio
from collections.abc import Callable

from coreinfer.serve.jobs import Event, Piece

Box = asyncio.Queue[Event]


class Mail:
    """``to`` is what the engine's thread puts events with, ``flush`` sends them off."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._held = loop, list[tuple[Box, Event]]()

    def to(self, box: Box) -> Callable[[Event], None]:
        return lambda event: self._held.append((box, event))

    def flush(self) -> None:
        held, self._held = self._held, []
        if held and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_deliver, fewer(held))


def fewer(held: list[tuple[Box, Event]]) -> list[tuple[Box, Event]]:
    """The same with pieces of a text that follow one another as one, since each is a message to write and to read."""
    made, last = list[tuple[Box, Event]](), dict[int, int]()  # box -> where its latest event is in ``made``
    for box, event in held:
        before = made[last[id(box)]][1] if id(box) in last else None
        if (one := _joined(before, event)) is not None:
            made[last[id(box)]] = box, one
        else:
            last[id(box)] = len(made)
            made.append((box, event))
    return made


def _joined(before: Event | None, event: Event) -> Piece | None:
    if not isinstance(before, Piece) or not isinstance(event, Piece) or before.number != event.number:
        return None
    if before.chances is not None or event.chances is not None:
        return None
    return Piece(event.number, before.text + event.text, None, before.tokens + event.tokens)


def _deliver(held: list[tuple[Box, Event]]) -> None:
    for box, event in held:
        box.put_nowait(event)
