"""Texts that have a slot, in groups that take turns; a group's texts decode together on the union of their sets."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from coreinfer.decode.seats import Seat, Table
from coreinfer.grouping import joined
from coreinfer.neurons import NeuronSet
from coreinfer.serve.joining import Join, Mask, Waits, choose, overtake
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.texts import Text

log = logging.getLogger("coreinfer.serve")
STEPS = 8  # of a group before it is another's turn, or a waiting text's
# Seconds after which texts say what they made: nobody reads faster, and each message takes from the steps. So eight or
# more, which have 80 messages a second, say it half as often as up to four.
PACES, MESSAGES = (0.05, 0.1), 80
Pick = Callable[[Sequence[Waits], Sequence[Mask], Sequence[int]], Join]
LOOSE = 2  # turns for which more may be gathered than is needed
SLACK = 0.8  # share of what is gathered below which a smaller union is gathered


@dataclass(eq=False)
class Group:
    """``held``: what is gathered for it, which holds each one's neurons; ``roomy``: whether that is much more than they
    need, ``loose``: for how many turns it was; ``sat``: who sat down to it.
    """

    texts: list[Text] = field(default_factory=list)
    held: NeuronSet | None = None
    sat: list[Text] = field(default_factory=list)
    roomy: bool = False
    loose: int = 0

    @property
    def union(self) -> Mask:
        union: Mask = np.logical_or.reduce([text.waits.mask for text in self.texts])
        return union

    def gathered(self) -> NeuronSet:
        """What the next steps run on: what is held, where that has all and not much more. It may have much more for two
        turns: others often come in the place of who left.
        """
        union = self.union
        if self.held is not None:
            held = self.held.mask().reshape(-1)
            self.roomy = bool(union.sum() < SLACK * held.sum())
            self.loose = self.loose + 1 if self.roomy else 0
            if not (union & ~held).any() and self.loose <= LOOSE:
                return self.held
        self.held, self.roomy, self.loose = joined([text.neurons for text in self.texts]), False, 0
        return self.held


class Running:
    """The groups, over one decoder's slots. ``flush``: called after steps, when what was told may be sent; what is told
    last in a turn is sent by whoever gave it, once all had their ``say``.
    """

    def __init__(
        self, table: Table, ends: frozenset[int], metrics: Metrics, flush: Callable[[], object], pick: Pick = choose
    ) -> None:
        self.table, self.ends, self.metrics, self.flush, self.pick = table, ends, metrics, flush, pick
        self.groups = list[Group]()
        self._sat: Group | None = None
        self._sent = 0.0

    @property
    def texts(self) -> list[Text]:
        return [text for group in self.groups for text in group.texts]

    @property
    def free(self) -> int:
        return len(self.table.free)

    def fill(self, waiting: list[Text], seat: Callable[[Text], Seat]) -> None:
        """Give free slots to those that wait; ``seat`` brings a text's prefill into its slot."""
        while waiting and self.table.free:
            order = [text.waits for text in waiting]
            join = self.pick(order, [g.union for g in self.groups], [len(g.texts) for g in self.groups])
            overtake(order, join.text)
            text = waiting.pop(join.text)
            try:
                text.seat = seat(text)
            except Exception as error:  # its own fault: the others have their slots
                log.exception("a text was not seated")
                text.job.fail(error)
                continue
            if join.group is None:
                self.groups.append(Group())
            self.groups[-1 if join.group is None else join.group].texts.append(text)

    def release(self) -> None:
        """Take slots back from texts whose clients have left."""
        for group in self.groups:
            self._leave(group, [text for text in group.texts if text.job.gone], None)
        self.groups = [group for group in self.groups if group.texts]

    def clear(self) -> list[Text]:
        """Give all slots back; whose they were, who have told what they made."""
        self.say()
        texts = self.texts
        for text in texts:
            if text.seat is not None:
                self.table.leave(text.seat.slot)
        self.groups, self._sat = [], None
        return texts

    def say(self) -> None:
        """Let all texts tell what they made, and send that."""
        for text in self.texts:
            try:
                text.say()
            except Exception as error:  # its own fault, again
                log.exception("a text could not be told")
                text.job.fail(error)
        self._sent = time.monotonic()
        self.flush()

    def run(self, interrupted: Callable[[], bool]) -> None:
        """The turn of the first group; it ends early where it is ``interrupted``."""
        group = self.groups[0]
        for step in range(STEPS):
            self._leave(group, [text for text in group.texts if text.job.gone], None)
            if not group.texts:
                break
            if not self._sits(group) or (group.roomy and step == 0):
                self._sit(group)
            self._step(group)
            if interrupted():
                break
        self.groups = [g for g in (*self.groups[1:], group) if g.texts]

    def _sits(self, group: Group) -> bool:
        return self._sat is group and group.sat == group.texts and bool(self.table.seats)

    def _sit(self, group: Group) -> None:
        held, before = group.gathered(), self.table.decoder.gathers
        self.table.sit([text.seat for text in group.texts if text.seat], held)
        self.metrics.sat(self.table.decoder.gathers > before)
        self._sat, group.sat = group, list(group.texts)

    def _step(self, group: Group) -> None:
        begun = time.monotonic()
        tokens = self.table.step()
        done = dict[str, list[Text]]()
        now = time.monotonic()
        self.metrics.stepped(len(tokens), now - begun)
        for row, (text, token) in enumerate(zip(list(group.texts), tokens, strict=True)):
            self.metrics.between.observe(now - text.last)
            if why := self._take(text, row, token):
                done.setdefault(why, []).append(text)
        for why, texts in done.items():
            self._leave(group, texts, why)
        least, most = PACES
        if now - self._sent > min(most, max(least, len(self.texts) / MESSAGES)):
            self.say()
        elif done:
            self.flush()

    def _take(self, text: Text, row: int, token: int) -> str | None:
        try:
            logits = self.table.logits(row) if text.job.wish.logprobs is not None else None
            return text.take(token, logits, self.ends)
        except Exception as error:  # the others of this step go on; this one leaves before the next
            log.exception("a token was not taken")
            text.job.fail(error)
            return None

    def _leave(self, group: Group, texts: Sequence[Text], why: str | None) -> None:
        for text in texts:
            group.texts.remove(text)
            assert text.seat is not None
            self.table.leave(text.seat.slot)
            if why is not None:
                text.end(why)
            elif text.job.left:
                self.metrics.freed.observe(time.monotonic() - text.job.left)
