"""Lossless decoding: steps on the kept neurons draft tokens, and one dense step over all of them says which are right.

Speculative decoding (Leviathan et al. 2023) in which a model drafts for itself, on its core neurons and in its own
cache. Both steps draw with the noise that a token's position has (``picking.drawn``), so at any temperature an
accepted token is the one that dense decoding would have drawn with this seed: equal, not only alike in distribution.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from coreinfer.decode.drafting import MOST, Drafting
from coreinfer.decode.state import Feed, State


class Looks(Protocol):
    """A step that leaves the token picked of every row in use of its feed."""

    feed: Feed

    def look(self) -> None: ...


@dataclass(frozen=True)
class Drafts:
    """How many tokens were drafted and accepted, and by how much this was faster than dense steps in the same run."""

    drafted: int
    accepted: int
    gain: float


def together(parts: Sequence[Drafts | None]) -> Drafts | None:
    """Of a continuation in parts; the gain is their mean, each counting by what was drafted."""
    made = [part for part in parts if part is not None]
    if not made:
        return None
    drafted = sum(part.drafted for part in made)
    gain = sum(part.gain * part.drafted for part in made) / drafted if drafted else 1.0
    return Drafts(drafted, sum(part.accepted for part in made), gain)


class Lossless:
    """``tokens`` as the decoder's, from a state that a prefill began; equal to what ``dense`` alone would make."""

    def __init__(self, state: State, draft: Callable[[], None], dense: Looks) -> None:
        self.state, self.draft, self.dense = state, draft, dense
        self.drafting, self._made, self._began = Drafting(), 0, time.perf_counter()

    def tokens(self, count: int) -> Iterator[int]:
        """The next ``count`` tokens."""
        self._began = time.perf_counter()
        while count > 0:
            at = int(self.state.feed.position[0])
            for token in self._pass(at, self.ahead(min(count - 1, self.state.context - 2 - at))):
                self._made += 1
                yield token
                count -= 1

    def ahead(self, room: int) -> int:
        """How many tokens to draft, at most ``room``."""
        return self.drafting.next(room)

    def _pass(self, at: int, ahead: int) -> list[int]:
        """Draft ``ahead`` tokens after position ``at``, look at them, and keep those that are right and one more."""
        begun = time.perf_counter()
        for _ in range(ahead):
            self.draft()
        drafts = self.state.history[0, at : at + ahead + 1].tolist()  # from the token that is known on
        drafted = time.perf_counter()
        made = self._right(at, drafts)
        self.drafting.saw(ahead, len(made) - 1, drafted - begun, time.perf_counter() - drafted)
        feed, end = self.state.feed, at + len(made)
        feed.token.fill_(made[-1]), feed.position.fill_(end)
        self.state.history[0, at + 1 : end + 1] = self.state.history.new_tensor(made)
        return made

    def _right(self, at: int, tokens: list[int]) -> list[int]:
        """What dense steps would have made of ``tokens``, the first of them known and at ``at``."""
        mine, feed, rows = self.state.feed, self.dense.feed, slice(len(tokens))
        feed.count = len(tokens)
        feed.temperature.copy_(mine.temperature[:1].expand_as(feed.temperature))
        feed.seed.copy_(mine.seed[:1].expand_as(feed.seed))
        feed.token[rows], feed.position[rows] = feed.token.new_tensor(tokens), torch.arange(at, at + len(tokens))
        self.dense.look()
        made = list[int]()
        for token, expected in zip(feed.next[rows].tolist(), [*tokens[1:], -1], strict=True):
            made.append(token)
            if token != expected:
                break
        return made

    def drafts(self) -> Drafts:
        """What has come of it so far; the gain is against the quickest dense step of one row."""
        took = time.perf_counter() - self._began
        gain = self._made * self.drafting.one_s / took if self._made else 1.0
        return Drafts(self.drafting.drafted, self.drafting.accepted, gain)


def rows_needed() -> int:
    """Rows of the dense step's feed."""
    return MOST + 1
