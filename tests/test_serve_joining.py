"""Who gets a slot and with whom: like ones meet, and no text waits for more than it is told."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from seating import FakeTable, a_set, mask

from coreinfer.decode.continuing import Sampling
from coreinfer.decode.seats import Seat
from coreinfer.neurons import NeuronSet
from coreinfer.serve.jobs import Ended, Job, Wish
from coreinfer.serve.joining import GROUPS, PATIENCE, Cost, Mask, Waits, choose, first_come
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.running import LOOSE, STEPS, Group, Running
from coreinfer.serve.texts import Text
from coreinfer.serve.words import Words


def unions(groups: Sequence[Sequence[Mask]]) -> list[Mask]:
    return [np.logical_or.reduce(group) for group in groups]


def test_like_ones_meet_and_unlike_ones_stay_apart() -> None:
    river, rice, law = (mask(topic) for topic in range(3))
    waiting, costly = [Waits(one) for one in (rice, river, law)], Cost(0.01, 0.5)
    made = choose(waiting, [river], [1], costly)
    assert (made.text, made.group) == (1, 0)
    made = choose([Waits(rice), Waits(law)], [river], [1], costly)
    assert (made.text, made.group) == (0, None)
    made = choose([Waits(rice), Waits(law)], [river], [1], Cost(1.0, 0.0))
    assert (made.text, made.group) == (0, 0), "where only reading costs, one group is best"
    most = [river, rice, law][:GROUPS]
    wide = choose([Waits(mask(0, wide=True))], most, [9] * GROUPS, costly)
    assert wide.group in range(GROUPS)  # a slot is never left free
    assert (first_come(waiting, [law], [1]).text, first_come(waiting, [], []).group) == (0, None)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    st.lists(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=4), max_size=GROUPS),
    st.builds(Cost, st.floats(0, 1), st.floats(0, 1)),
)
def test_who_joins_saves_most_of_all(some: Any, there: Any, cost: Cost) -> None:
    """By the times of all steps, before and after."""

    def time_of(group: Sequence[Mask]) -> float:
        return float((cost.other + unions([group])[0].mean()) * (1 + cost.row * len(group)))

    def saved(text: Mask, group: list[Mask]) -> float:
        return time_of([text]) + time_of(group) - time_of([*group, text])

    masks, groups = [mask(*one) for one in some], [[mask(*one) for one in group] for group in there]
    made = choose([Waits(one) for one in masks], unions(groups), list(map(len, groups)), cost)
    every = [saved(one, group) for group in groups for one in masks]
    if made.group is None:
        assert made.text == 0
        assert len(groups) < GROUPS
        assert max(every, default=0) < 1e-9
    else:
        mine = saved(masks[made.text], groups[made.group])
        first = [saved(masks[0], group) for group in groups]
        assert mine >= max(every) - 1e-9 or (made.text == 0 and len(groups) == GROUPS and mine >= max(first) - 1e-9)


class Served:
    """The real groups over a fake decoder; texts come by its clock."""

    def __init__(self, slots: int) -> None:
        self.table, self.begun, self.ended = FakeTable(slots), list[int](), list[int]()
        self.running = Running(self.table, frozenset(), Metrics(), lambda: None)  # type: ignore[arg-type]
        self.waiting = list[Text]()

    def come(self, name: int, tokens: int, neurons: NeuronSet) -> None:
        wish = Wish("auto", None, False, Sampling(), 0, tokens)
        job = Job(
            [], 1, wish, lambda event: self.ended.append(name) if isinstance(event, Ended) else None, float("inf")
        )
        waits = Waits(neurons.mask().reshape(-1))
        self.waiting.append(Text(job, name, waits, neurons, Words(lambda some: "a" * len(some)), tokens, 1 << 9, 0, 0))

    def seat(self, text: Text) -> Seat:
        self.begun.append(text.number)
        slot = self.table.free.pop()
        self.table.since[slot] = self.table.clock
        return Seat(slot, 0, 0, 0.0, 0, 1.0, text.neurons)

    def turn(self) -> None:
        self.running.fill(self.waiting, self.seat)
        assert not (self.waiting and self.table.free)  # no slot stays free while a text waits
        if self.running.groups:
            self.running.run(lambda: False)
        else:
            self.table.clock += STEPS


TEXT = st.tuples(st.integers(0, 12), st.integers(1, 40), st.integers(0, 2), st.booleans())


@settings(max_examples=100, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=50), st.integers(1, 4))
def test_no_text_is_overtaken_by_more_than_its_patience(texts: Any, slots: int) -> None:
    """Whatever comes when, and whatever it needs; and who has a slot has a step within two other groups' turns."""
    served, came = Served(slots), 0
    arrivals = np.cumsum([pause for pause, *_ in texts]).tolist()
    while len(served.ended) < len(texts):
        while came < len(texts) and arrivals[came] <= served.table.clock:
            _, tokens, topic, wide = texts[came]
            served.come(came, tokens, a_set(topic, wide))
            came += 1
        served.turn()
    assert sorted(served.begun) == sorted(served.ended) == list(range(len(texts)))
    place = {name: at for at, name in enumerate(served.begun)}
    for name in range(len(texts)):
        assert sum(place[later] < place[name] for later in range(name + 1, len(texts))) <= PATIENCE
        assert place[name] <= name + PATIENCE
    assert served.table.longest <= (GROUPS - 1) * STEPS + 1
    assert sorted(served.table.free) == list(range(slots))


def test_patience_is_used_and_ends() -> None:
    """One unlike text behind many like ones, of which one slot at a time is free."""
    served = Served(1)
    served.come(0, 20, a_set(0, False))
    served.turn()
    served.come(1, 20, a_set(1, False))
    for name in range(2, 60):
        served.come(name, 20, a_set(0, False))
    while 1 not in served.begun:
        served.turn()
    assert served.begun.index(1) <= 1 + PATIENCE


def test_who_has_left_gives_its_slot_back_before_the_next_step() -> None:
    served = Served(2)
    for name in range(2):
        served.come(name, 400, a_set(name, False))
    served.turn()
    (gone,) = (text for text in served.running.texts if text.number == 0)
    gone.job.leave()
    while gone in served.running.texts:
        before = len(gone.made)
        served.turn()
    assert len(gone.made) == before
    assert len(served.table.free) == 1
    assert served.ended == []


def test_a_group_keeps_what_is_gathered_for_two_turns_after_someone_left() -> None:
    """Whoever comes meanwhile."""

    def text(neurons: Any) -> Any:
        return SimpleNamespace(neurons=neurons, waits=Waits(neurons.mask().reshape(-1)))

    small, large = (text(NeuronSet((np.arange(count, dtype=np.int32),), 100)) for count in (20, 60))
    group = Group([small, large])
    both = group.gathered()
    assert both.per_layer == [60]
    for _ in range(LOOSE):
        group.texts = [text(small.neurons)]
        assert group.gathered() is both
        assert group.roomy
    group.texts = [text(small.neurons)]
    assert group.gathered().per_layer == [20]
    assert not group.roomy
    group.texts = [large]
    assert group.gathered().per_layer == [60]
