"""Events from the engine's thread to the event loop: one wake-up for all that was told."""

import asyncio
from collections.abc import Callable

from coreinfer.serve.jobs import Event

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
            self._loop.call_soon_threadsafe(_deliver, held)


def _deliver(held: list[tuple[Box, Event]]) -> None:
    for box, event in held:
        box.put_nowait(event)
