"""A prompt of a request -> texts that may take a slot: planned by its match, and prefilled."""

import time
from dataclasses import dataclass, replace

from coreinfer.decode.continuing import Begun, Noise
from coreinfer.decode.picking import drawn
from coreinfer.decode.seats import Seat, Table
from coreinfer.launching import launching_on
from coreinfer.neurons import every
from coreinfer.serve.jobs import Began, Job
from coreinfer.serve.joining import Waits
from coreinfer.serve.matching import match_of
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.texts import Text
from coreinfer.serve.versions import Version
from coreinfer.serve.words import Words


@dataclass
class Prompted:
    """The ``number``-th prompt of a job, which waits for its prefill."""

    job: Job
    number: int


class Preparing:
    """Of one version. Its texts hold a prompt's prefill until each has a slot."""

    def __init__(self, version: Version, context: int, ends: frozenset[int], metrics: Metrics) -> None:
        self.version, self.context, self.ends, self.metrics = version, context, ends, metrics

    def texts(self, one: Prompted) -> list[Text]:
        """Prefill a prompt, tell of its first tokens, and hand on what is not done with them."""
        job, wish, asked = one.job, one.job.wish, one.job.prompts[one.number]
        started = time.monotonic()
        engine, keep = self.version.engine, self.version.keep(wish.keep)
        planned = engine.planned(asked.words, wish.policy, keep, match_of(job, one.number, engine))
        noise = Noise(wish.seed_of(one.number * job.n))
        with launching_on(asked.ids.device):
            begun = self.version.own.prefill(asked.ids, planned.wanted, wish.sampling, noise)
        if wish.lossless:
            begun = replace(begun, kept=every(len(begun.kept.layers), begun.kept.width))
        now = time.monotonic()
        self.metrics.began(planned.prediction, asked.ids.shape[1], now - job.arrived)
        job.tell(Began(one.number, planned.prediction, self.version.digest))
        return self._first(one, begun, started - job.arrived, now - job.arrived)

    def _first(self, one: Prompted, begun: Begun, queue_s: float, first_s: float) -> list[Text]:
        job, wish, waits = one.job, one.job.wish, begun.kept.mask().reshape(-1)
        room, texts = self.context - begun.ids.shape[1], list[Text]()
        assert begun.logits is not None
        for number in range(one.number * job.n, (one.number + 1) * job.n):
            words = Words(self._decode, wish.stops)
            text = Text(
                job, number, Waits(waits), begun.kept, words, min(wish.max_tokens, room), room, queue_s, first_s
            )
            first = begun.first
            if number > one.number * job.n:  # the prefill drew that of the first
                seed, at = wish.seed_of(number), begun.ids.shape[1] - 1
                first = drawn(begun.logits, wish.sampling.temperature, seed, at, wish.sampling.top_p)
            self.metrics.new.inc()
            if why := text.take(first, begun.logits, self.ends):
                text.end(why)
            else:
                text.say()
                texts.append(text)
        begun.logits = None
        for text in texts:
            text.prefill = begun
        return texts

    def _decode(self, tokens: list[int]) -> str:
        return str(self.version.engine.tokenizer.decode(tokens, skip_special_tokens=True))


def seated(table: Table, text: Text) -> Seat:
    """Bring a text's prefill into a slot; it is held no longer by this text."""
    begun, text.prefill = text.prefill, None
    assert begun is not None
    slot, wish = table.take(begun.ids, begun.cache), text.job.wish
    heat, seed = wish.sampling.temperature, wish.seed_of(text.number)
    text.seated()
    return Seat(slot, text.made[-1], begun.ids.shape[1], heat, seed, wish.sampling.top_p, text.neurons)
