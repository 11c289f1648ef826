"""Texts that come and go: each has a slot of the caches, and any of them may run the next step together.

``together`` decodes texts that begin and are finished as one; here a text is seated when it comes, and what it becomes
does not depend on who sits beside it: on a CPU a step computes the union of all sets, and each row keeps its own
neurons of it. A GPU's kernels run every row on the union.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from coreinfer.decode.decoder import Decoder
from coreinfer.neurons import NeuronSet


@dataclass
class Seat:
    """A text's slot, its last token and that one's position, how the next is picked, and its neurons."""

    slot: int
    token: int
    position: int
    temperature: float
    seed: int
    top_p: float
    neurons: NeuronSet


class Table:
    """A decoder whose slots are given out one by one.

    The decoder has its room already (``make_room``); its user holds the model for itself.
    """

    def __init__(self, decoder: Decoder) -> None:
        self.decoder, self.seats = decoder, list[Seat]()
        self.free = list(range(decoder.state.slots))

    def take(self, ids: Tensor, cache: object) -> int:
        """A free slot, which then holds a prompt's prefill: ``ids`` (1, P) and its cache."""
        self.seats = []  # whoever runs next is seated anew
        self.decoder.begin(ids, cache, 0, self.free[-1])
        return self.free.pop()

    def leave(self, slot: int) -> None:
        self.free.append(slot)

    def sit(self, seats: Sequence[Seat], union: NeuronSet) -> None:
        """Let these run the next steps; ``union`` holds each one's neurons."""
        decoder, feed = self.decoder, self.decoder.state.feed
        decoder.keep(union, len(seats))
        for name in ("token", "position", "slot", "seed", "temperature", "top_p"):
            held = getattr(feed, name)
            held[: len(seats)] = torch.tensor([getattr(seat, name) for seat in seats], dtype=held.dtype)
        feed.count = len(seats)
        if not decoder.on_gpu:
            decoder.only([seat.neurons for seat in seats])
        self.seats = list(seats)

    def step(self) -> list[int]:
        """The next token of each that sits."""
        tokens = self.decoder.once()
        for seat, token in zip(self.seats, tokens, strict=True):
            seat.token, seat.position = token, seat.position + 1
        return tokens

    def logits(self, row: int) -> Tensor:
        """Float32 (V,), from which the last token of this row was picked; on a CPU alone."""
        return self.decoder.state.feed.logits[row]
