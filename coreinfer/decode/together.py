"""Several texts decoded together, a slot each: one step reads the weights of their common set once for all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from coreinfer.decode.continuing import Begun, Sampling
from coreinfer.decode.decoder import Decoder
from coreinfer.neurons import NeuronSet


@dataclass
class Text:
    """One of them: the tokens after its prompt, of up to ``length``, and the seconds that all but the first took."""

    begun: Begun
    length: int
    made: list[int] = field(default_factory=list)
    seconds: float = 0.0

    def take(self, token: int, ends: Callable[[int], bool]) -> bool:
        """Whether it was the last."""
        self.made.append(token)
        return ends(token) or len(self.made) == self.length


def decode(
    decoder: Decoder, texts: Sequence[Text], neurons: NeuronSet, ends: Callable[[int], bool], sampling: Sampling
) -> None:
    """Finish these texts; each becomes what it would alone on this set, by a CPU's step to the last bit.

    The decoder has a slot for each (``make_room``); the caller holds the model for itself. Their prefills' caches are
    let go once they were copied.
    """
    going = [text for text in texts if not text.take(text.begun.first, ends)]
    if not going:
        return
    with decoder.here():
        decoder.keep(neurons, len(going))
        for slot, text in enumerate(going):
            decoder.begin(text.begun.ids, text.begun.cache, text.begun.first, slot)
            decoder.sample(sampling.temperature, text.begun.seed, slot)
            text.begun.cache = None
        _run(decoder, going, ends)


def _run(decoder: Decoder, going: Sequence[Text], ends: Callable[[int], bool]) -> None:
    begun = time.perf_counter()
    for tokens in decoder.rounds():
        now = time.perf_counter() - begun
        for slot, token in tokens.items():
            going[slot].seconds = now
            if going[slot].take(token, ends):
                decoder.leave(slot)
