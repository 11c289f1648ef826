"""Who is late, by a clock that the tests turn."""

import pytest

from pipeline.shards.crew import Event
from pipeline.shards.patience import EVERY, KNOWN, LEAST, TIMES, Patience

Late = list[tuple[int, int, float, float]]


class Turned:
    """Looks as often as one does who waits."""

    def __init__(self) -> None:
        self.now = 0.0
        self.patience = Patience(lambda: self.now)

    def after(self, seconds: float) -> Late:
        """Who was late by then."""
        found: Late = []
        for _ in range(round(seconds / EVERY)):
            self.now += EVERY
            found += self.patience.late()
        return found

    def done(self, shards: int, seconds: float) -> None:
        """By worker 0."""
        for shard in range(shards):
            self.patience.hear(Event("begun", 0, shard))
            assert not self.after(seconds)
            self.patience.hear(Event("done", 0, shard))


@pytest.mark.parametrize(("usual", "most"), [(10.0, LEAST), (60.0, TIMES * 60.0)])
def test_a_late_worker_is_named_once(usual: float, most: float) -> None:
    turned = Turned()
    turned.done(KNOWN, usual)
    turned.patience.hear(Event("begun", 1, 7))
    assert turned.after(most) == []
    ((worker, shard, taken, others),) = turned.after(10 * most)
    assert (worker, shard, others) == (1, 7, usual)
    assert most < taken <= most + 2 * EVERY


def test_before_shards_are_known_nobody_is_late() -> None:
    turned = Turned()
    turned.patience.hear(Event("begun", 1, 7))
    turned.done(KNOWN - 1, 10.0)
    assert turned.after(100 * LEAST) == []


def test_a_machine_that_slept_makes_nobody_late() -> None:
    turned = Turned()
    turned.done(KNOWN, 10.0)
    turned.patience.hear(Event("begun", 1, 7))
    for _ in range(20):
        turned.now += 8 * 3600
        assert list(turned.patience.late()) == []


@pytest.mark.parametrize("what", ["died", "failed"])
def test_a_shard_that_is_begun_again_has_its_time_again(what: str) -> None:
    turned = Turned()
    turned.done(KNOWN, 10.0)
    turned.patience.hear(Event("begun", 1, 7))
    turned.after(LEAST / 2)
    turned.patience.hear(Event(what, 1, 7))  # type: ignore[arg-type]
    turned.patience.hear(Event("started", 1))
    assert turned.after(LEAST) == []
    assert len(turned.after(LEAST)) == 1


@pytest.mark.parametrize("what", ["done", "bad", "left"])
def test_who_is_at_no_shard_is_not_late(what: str) -> None:
    turned = Turned()
    turned.done(KNOWN, 10.0)
    turned.patience.hear(Event("begun", 1, 7))
    turned.patience.hear(Event(what, 1, 7))  # type: ignore[arg-type]
    assert turned.after(10 * LEAST) == []
