"""A continuation on its way: its tokens so far, why it ends, and what its client is told of it."""

import time
from dataclasses import dataclass, field

from coreinfer.decode.continuing import Begun
from coreinfer.decode.seats import Seat
from coreinfer.neurons import NeuronSet
from coreinfer.serve.jobs import Ended, Job, Piece
from coreinfer.serve.joining import Waits
from coreinfer.serve.logprobs import Chances, chances
from coreinfer.serve.words import Words


@dataclass(eq=False)
class Text:
    """One continuation. ``number``: among its request's; ``most``: tokens that it may have, ``room``: could have;
    ``prefill``: its prompt's, until it has a slot.
    """

    job: Job
    number: int
    waits: Waits
    neurons: NeuronSet
    words: Words
    most: int
    room: int
    queue_s: float
    first_s: float
    prefill: Begun | None = None
    seat: Seat | None = None
    made: list[int] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    last: float = 0.0
    untold: int = 0
    held: str = ""  # of what is untold, what was looked at for a stop string

    def take(self, token: int, logits: object, ends: frozenset[int]) -> str | None:
        """One more token; why it was the last, if it was. ``say`` tells of it, at once where it has logprobs."""
        wish, end = self.job.wish, token in ends
        self.made.append(token)
        self.untold += 1
        if not end:  # the end is no part of the text
            self.words.take(token)
            self.held += self.words.said() if wish.stops else ""
            if wish.logprobs is not None:
                self.say(chances(logits, token, wish.logprobs))  # type: ignore[arg-type]
        why = "eos" if end else "stop" if self.words.stopped else self._full()
        if why is not None:
            self.say(last=True)
        self.last = time.monotonic()
        return why

    def say(self, found: Chances | None = None, last: bool = False) -> None:
        """Tell of what was made since the last time."""
        piece, self.held = self.held + self.words.said(), ""
        piece += self.words.rest() if last else ""
        if piece or found is not None or (last and self.untold):  # else the next one tells of these tokens
            self.job.tell(Piece(self.number, piece, found, self.untold))
            self.untold = 0

    def _full(self) -> str | None:
        if len(self.made) >= self.most:
            return "length" if self.most < self.room else "context"
        return "time" if self.job.late else None

    def seated(self) -> None:
        """It has waited for a slot since its prefill; its decoding begins."""
        now = time.monotonic()
        self.queue_s += now - self.began
        self.began = now

    def cut(self, why: str) -> None:
        """No token follows; what was held back is sent."""
        self.say(last=True)
        self.end(why)

    def end(self, why: str) -> None:
        took = max(0.0, self.last - self.began)
        self.job.tell(Ended(self.number, why, len(self.made), self.queue_s, self.first_s, took))
