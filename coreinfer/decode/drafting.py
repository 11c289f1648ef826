"""PURE: how many tokens to draft before a dense step looks at all of them, from what was measured so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import mean

MOST = 8  # drafted tokens that one dense step looks at
LATEST = 0.2  # what a new measurement counts against those before it
PRIOR = 0.8  # share of drafts that is accepted, before any was
DRAFT, ROW = 0.5, 0.1  # of a dense step's seconds: what a draft and a further row take, before one was measured
TRIES = 16  # passes without drafts after which drafting is tried again: texts change
FIRST = 3  # passes without drafts at the start: what drafting has to beat


@dataclass
class Drafting:
    """Measured seconds of a draft step and of a dense step over n rows, and how often drafts were right.

    A draft is accepted if all before it were. At a rate ``a`` a pass of n drafts is worth 1 + a + … + a^n tokens
    (Leviathan et al. 2023, equation 1), for n draft steps and one dense step over n + 1 rows. ``one_s``: the quickest
    dense step of one row.
    """

    draft_s: float = 0.0
    dense_s: dict[int, float] = field(default_factory=dict)
    rate: float = PRIOR
    drafted: int = 0
    accepted: int = 0
    one_s: float = float("inf")
    _passes: int = 0
    _idle: int = 0

    def next(self, room: int) -> int:
        """How many to draft, at most ``room``; none where drafting does not pay, nor at first."""
        if self._passes < FIRST:
            return 0
        most, dense, draft_s = min(MOST, room), line(self.dense_s), self.draft_s or DRAFT * self.one_s
        best = max(range(most + 1), key=lambda n: (self._tokens(n) / (n * draft_s + dense(n + 1)), -n))
        self._idle = 0 if best or self._idle == TRIES else self._idle + 1
        return best if self._idle or best else min(2, most)

    def _tokens(self, n: int) -> float:
        return sum(self.rate**i for i in range(n + 1))

    def saw(self, drafted: int, accepted: int, draft_s: float, dense_s: float) -> None:
        """A pass and its seconds."""
        rows = drafted + 1
        self._passes += 1
        self.dense_s[rows] = _later(self.dense_s.get(rows), dense_s)
        self.one_s = min(self.one_s, dense_s) if rows == 1 else self.one_s
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted
        if drafted:
            self.draft_s = _later(self.draft_s or None, draft_s / drafted)
            judged = min(drafted, accepted + 1)  # those after the first wrong one say nothing
            self.rate += (1 - (1 - LATEST / 4) ** judged) * (accepted / judged - self.rate)


def _later(before: float | None, now: float) -> float:
    return now if before is None else before + LATEST * (now - before)


def line(points: dict[int, float]) -> Callable[[int], float]:
    """The straight line nearest to what was measured, never falling; by ``ROW`` where that is at one place only."""
    x, y = mean(points), mean(points.values())
    spread = sum((at - x) ** 2 for at in points)
    slope = max(0.0, sum((at - x) * (value - y) for at, value in points.items()) / spread) if spread else ROW * y
    return lambda at: y + slope * (at - x)
