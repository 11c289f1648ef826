"""PURE: how many tokens to draft before a dense step looks at all of them, from what was measured so far."""

from dataclasses import dataclass, field

MOST = 8  # drafted tokens that one dense step looks at
LATEST = 0.2  # what a new measurement counts against those before it
PRIOR = 0.8  # share of drafts that is accepted, before any was
TRIES = 16  # passes without drafts after which drafting is tried again: texts change


@dataclass
class Drafting:
    """Measured seconds of a draft step and of a dense step over n rows, and how often drafts were right.

    A draft is accepted if all before it were. At a rate ``a`` a pass of n drafts is worth 1 + a + … + a^n tokens
    (Leviathan et al. 2023, equation 1), for n draft steps and one dense step over n + 1 rows.
    """

    draft_s: float = 0.0
    dense_s: dict[int, float] = field(default_factory=dict)
    rate: float = PRIOR
    drafted: int = 0
    accepted: int = 0
    _idle: int = 0

    def next(self, room: int) -> int:
        """How many to draft, at most ``room``; none where drafting does not pay. The first pass is a dense step."""
        if not self.dense_s:
            return 0
        most = min(MOST, room)
        best = max(range(most + 1), key=lambda n: (self._tokens(n) / self._seconds(n), -n))
        self._idle = 0 if best or self._idle == TRIES else self._idle + 1
        return best if self._idle or best else min(2, most)

    def _tokens(self, n: int) -> float:
        return sum(self.rate**i for i in range(n + 1))

    def _seconds(self, n: int) -> float:
        return n * self.draft_s + self._dense(n + 1)

    def _dense(self, rows: int) -> float:
        """Measured, or by the nearest that was: hopeful, so that it will be."""
        near = min(self.dense_s, key=lambda n: abs(n - rows))
        return self.dense_s[near]

    def saw(self, drafted: int, accepted: int, draft_s: float, dense_s: float) -> None:
        """A pass and its seconds."""
        rows = drafted + 1
        self.dense_s[rows] = _later(self.dense_s.get(rows), dense_s)
        self.drafted, self.accepted = self.drafted + drafted, self.accepted + accepted
        if drafted:
            self.draft_s = _later(self.draft_s or None, draft_s / drafted)
            judged = min(drafted, accepted + 1)  # those after the first wrong one say nothing
            self.rate += (1 - (1 - LATEST / 4) ** judged) * (accepted / judged - self.rate)


def _later(before: float | None, now: float) -> float:
    return now if before is None else before + LATEST * (now - before)
