"""Slots without a model: what decides who decodes can be tried by a clock that counts steps."""

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from coreinfer.decode.seats import Seat
from coreinfer.neurons import NeuronSet
from coreinfer.serve.joining import Mask

WIDTH = 24


def mask(topic: int, wide: bool = False) -> Mask:
    """A third of all neurons, or nearly all."""
    out = np.zeros(WIDTH, bool)
    out[topic * 8 : topic * 8 + 8] = True
    return ~out if wide else out


def a_set(topic: int, wide: bool) -> NeuronSet:
    return NeuronSet((np.flatnonzero(mask(topic, wide)).astype(np.int32),), WIDTH)


class FakeTable:
    """A decoder that makes the same token for ever, by a clock that counts steps."""

    def __init__(self, slots: int) -> None:
        self.free, self.seats = list(range(slots)), list[Seat]()
        self.decoder, self.clock = SimpleNamespace(gathers=0), 0
        self.since, self.longest = dict[int, int](), 0

    def sit(self, seats: Sequence[Seat], union: NeuronSet) -> None:
        held = union.mask()
        assert all((held | ~one.neurons.mask()).all() for one in seats)
        self.seats = list(seats)

    def step(self) -> list[int]:
        self.clock += 1
        for seat in self.seats:
            self.longest = max(self.longest, self.clock - self.since.get(seat.slot, self.clock))
            self.since[seat.slot] = self.clock
        return [1] * len(self.seats)

    def take(self, ids: object, cache: object) -> int:
        slot = self.free.pop()
        self.since[slot] = self.clock
        return slot

    def leave(self, slot: int) -> None:
        self.free.append(slot)
        self.since.pop(slot, None)
