"""Who gets a slot and with whom: like ones meet, and no text waits for more than it is told."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer.grouping import CAP
from coreinfer.serve.joining import GROUPS, PATIENCE, Mask, Waits, choose, first_come, overtake

WIDTH = 24


def mask(topic: int, wide: bool = False) -> Mask:
    """A third of all neurons, or nearly all."""
    out = np.zeros(WIDTH, bool)
    out[topic * 8 : topic * 8 + 8] = True
    return ~out if wide else out


def unions(groups: Sequence[Sequence[Mask]]) -> list[Mask]:
    return [np.logical_or.reduce(group) for group in groups]


def alone(groups: Sequence[Sequence[Mask]]) -> list[int]:
    return [max(int(one.sum()) for one in group) for group in groups]


def test_like_ones_meet_and_unlike_ones_stay_apart() -> None:
    river, rice, law = (mask(topic) for topic in range(3))
    waiting = [Waits(one) for one in (rice, river, law)]
    made = choose(waiting, [river], [8])
    assert (made.text, made.group) == (1, 0)
    made = choose([Waits(rice), Waits(law)], [river], [8])
    assert (made.text, made.group) == (0, None)
    most = [river, rice, law][:GROUPS]
    wide = choose([Waits(mask(0, wide=True))], most, [8] * GROUPS)
    assert wide.group in range(GROUPS)  # a slot is never left free
    assert (first_come(waiting, [law], [8]).text, first_come(waiting, [], []).group) == (0, None)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=4), max_size=GROUPS),
)
def test_a_group_stays_near_its_largest_set(some: Any, there: Any) -> None:
    waiting = [Waits(mask(*one)) for one in some]
    groups = [[mask(*one) for one in group] for group in there]
    made = choose(waiting, unions(groups), alone(groups))
    if made.group is None:
        assert made.text == 0
        assert len(groups) < GROUPS
        return
    joined = [*groups[made.group], waiting[made.text].mask]
    fits = unions([joined])[0].sum() <= CAP * alone([joined])[0]
    assert fits or (len(groups) == GROUPS and made.text == 0)


class Slots:
    """A fake decoder by a fake clock: each text that has a slot ends after so many turns of its group."""

    def __init__(self, count: int) -> None:
        self.count, self.clock, self.begun = count, 0, list[int]()
        self.groups = list[list[tuple[int, Mask]]]()
        self.left = dict[int, int]()
        self.since = dict[int, int]()
        self.longest = 0

    @property
    def free(self) -> int:
        return self.count - sum(map(len, self.groups))

    def fill(self, waiting: list[tuple[int, int, Waits]]) -> None:
        while waiting and self.free:
            masks = [[one for _, one in group] for group in self.groups]
            order = [waits for _, _, waits in waiting]
            join = choose(order, unions(masks), alone(masks))
            overtake(order, join.text)
            name, turns, waits = waiting.pop(join.text)
            if join.group is None:
                self.groups.append([])
            self.groups[-1 if join.group is None else join.group].append((name, waits.mask))
            self.begun.append(name)
            self.left[name], self.since[name] = turns, self.clock

    def turn(self) -> None:
        self.clock += 1
        if not self.groups:
            return
        group, *rest = self.groups
        for name, _ in group:
            self.longest = max(self.longest, self.clock - self.since[name])
            self.since[name] = self.clock
            self.left[name] -= 1
        kept = [one for one in group if self.left[one[0]] > 0]
        self.groups = [some for some in (*rest, kept) if some]


TEXT = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 2), st.booleans())


@settings(max_examples=200)
@given(st.lists(TEXT, min_size=1, max_size=60), st.integers(1, 4))
def test_no_text_is_overtaken_by_more_than_its_patience(texts: Any, count: int) -> None:
    """Whatever comes when, and whatever it needs; and everyone who has a slot has a turn each ``GROUPS`` turns."""
    slots, waiting, came = Slots(count), list[tuple[int, int, Waits]](), 0
    arrivals = np.cumsum([pause for pause, *_ in texts]).tolist()
    for _ in range(60 * 9 * 4 + 200):
        while came < len(texts) and arrivals[came] <= slots.clock:
            _, turns, topic, wide = texts[came]
            waiting.append((came, turns, Waits(mask(topic, wide))))
            came += 1
        slots.fill(waiting)
        slots.turn()
        if came == len(texts) and not waiting and not slots.groups:
            break
    assert sorted(slots.begun) == list(range(len(texts)))
    place = {name: at for at, name in enumerate(slots.begun)}
    for name in range(len(texts)):
        assert sum(place[later] < place[name] for later in range(name + 1, len(texts))) <= PATIENCE
        assert place[name] <= name + PATIENCE
    assert slots.longest <= GROUPS


def test_patience_is_used_and_ends() -> None:
    """One unlike text among many like ones: it has the second group at once, or waits no longer than it must."""
    slots = Slots(1)
    waiting = [(0, 2, Waits(mask(0)))]
    slots.fill(waiting)
    waiting = [(1, 2, Waits(mask(1)))] + [(n, 2, Waits(mask(0))) for n in range(2, 60)]
    while 1 not in slots.begun:
        slots.turn()
        slots.fill(waiting)
    assert slots.begun.index(1) <= 1 + PATIENCE
