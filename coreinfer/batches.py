"""Many prompts, several decoded at a time: prefilled one by one, grouped by their neurons, finished group by group."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from coreinfer.decode.continuing import Continuing, Noise, Sampling, sampling_of
from coreinfer.decode.together import Text, decode
from coreinfer.errors import CoreInferError
from coreinfer.generation import Generation, Stopped
from coreinfer.grouping import groups, joined
from coreinfer.models import context_length, decoder_of
from coreinfer.planning import Planned
from coreinfer.prompts import Prompt
from coreinfer.settings import Policy
from coreinfer.streaming import end_tokens
from coreinfer.turns import alone
from coreinfer.wording import shortened

if TYPE_CHECKING:
    from torch import Tensor

    from coreinfer.decode.decoder import Decoder
    from coreinfer.engine import Engine

AHEAD = 4  # batches of prompts whose prefills wait for each other, so that like ones meet


@dataclass
class Waiting:
    """A prompt after prefill."""

    planned: Planned
    text: Text
    first_token_s: float


@dataclass(frozen=True)
class Wish:
    """What all prompts of a call have in common."""

    batch: int
    policy: Policy
    keep: float | None
    new_tokens: int
    sampling: Sampling
    ends: frozenset[int]


def encoded(engine: "Engine", prompts: Sequence[Prompt]) -> "list[Tensor]":
    """The token ids (1, P) of each.

    Raises:
        CoreInferError: one that cannot be continued; the message says which.
    """
    if isinstance(prompts, str):
        raise CoreInferError(f"the prompts are one text, {shortened(prompts, 40)!r}: give a list of them")
    made = list["Tensor"]()
    for number, prompt in enumerate(prompts, 1):
        try:
            made.append(engine.encode(prompt))
        except CoreInferError as error:
            raise CoreInferError(f"prompt {number}: {error}") from error
    return made


def generate_many(
    engine: "Engine", prompts: Sequence[Prompt], batch: int, policy: Policy, keep: float | None, new_tokens: int,
    options: dict[str, Any],
) -> Iterator[Generation]:  # fmt: skip
    """As ``Engine.generate_many``, for checked options."""
    ids = encoded(engine, prompts)
    if why := engine.runtimes.why_not(options):
        raise CoreInferError(f"a batch is decoded by coreinfer's own steps, which cannot serve {why}: leave it out")
    ends = end_tokens(options, engine.model.generation_config)
    wish = Wish(batch, policy, keep, new_tokens, sampling_of(options) or Sampling(), ends)
    for begin in range(0, len(prompts), AHEAD * batch):
        wave = slice(begin, begin + AHEAD * batch)
        yield from _some(engine, prompts[wave], ids[wave], wish)


def _some(engine: "Engine", prompts: Sequence[Prompt], ids: "list[Tensor]", wish: Wish) -> Iterator[Generation]:
    """So many that their prefills may wait for each other; each is handed on once all before it are done."""
    matches = engine.match(prompts)
    planned = [engine.planned(p, wish.policy, wish.keep, match) for p, match in zip(prompts, matches, strict=True)]
    with _room(engine, ids, wish) as (own, _):
        waiting = [_begun(own, one, mine, wish) for one, mine in zip(planned, ids, strict=True)]
    kept, handed = [one.text.begun.kept for one in waiting], 0
    for members in groups(kept, wish.batch):
        union, some = joined([kept[n] for n in members]), [waiting[n] for n in members]
        with _room(engine, ids, wish) as (_, decoder):
            decode(decoder, [one.text for one in some], union, wish.ends.__contains__, wish.sampling)
        for one in some:
            one.planned.prediction = replace(one.planned.prediction, neurons=union)
        while handed < len(waiting) and waiting[handed].text.made:
            yield _made(engine, waiting[handed], wish)
            handed += 1


@contextmanager
def _room(engine: "Engine", ids: "Sequence[Tensor]", wish: Wish) -> "Iterator[tuple[Continuing, Decoder]]":
    """The model for itself, and its steps with room for these prompts' texts."""
    tokens = min(context_length(engine.model), max(one.shape[1] for one in ids) + wish.new_tokens)
    with alone(decoder_of(engine.model), "Engine.generate_many", ends=True):
        yield engine.runtimes.several(tokens, min(wish.batch, len(ids)))


def _begun(own: Continuing, planned: Planned, ids: "Tensor", wish: Wish) -> Waiting:
    started = time.perf_counter()
    begun = own.prefill(ids, planned.wanted, wish.sampling, Noise())
    text = Text(begun, min(wish.new_tokens, context_length(own.model) - ids.shape[1]))
    return Waiting(planned, text, time.perf_counter() - started)


def _made(engine: "Engine", one: Waiting, wish: Wish) -> Generation:
    tokens, start = one.text.made, one.text.begun.ids.shape[1]
    full = len(tokens) >= context_length(engine.model) - start
    stopped: Stopped = "length" if len(tokens) >= wish.new_tokens else "context" if full else "eos"
    return Generation(
        str(engine.tokenizer.decode(tokens, skip_special_tokens=True)), one.planned.prediction, start, len(tokens),
        stopped, one.first_token_s, one.text.seconds, runtime="coreinfer",
    )  # fmt: skip
