"""Where the prompt ends: told by ``generate``, by the caller, or by the cache that a call continues. Never guessed.

``generate`` does not promise that its first forward is the prompt: assisted decoding and prompt lookup add candidates
to it, chunked prefill makes several of it. So ``generate`` is wrapped while a model is slim, and says what it got.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from threading import get_ident
from typing import Any
from weakref import WeakKeyDictionary

from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from coreinfer.errors import CoreInferError


@dataclass(frozen=True)
class Call:
    """One forward of the decoder: ``rows`` texts, ``length`` positions from ``start`` on."""

    ids: Tensor | None
    mask: Tensor | None
    cache: Cache | None
    caching: bool
    rows: int
    start: int
    length: int


class Reader:
    """Reads the arguments of a decoder's forward, however they were passed."""

    def __init__(self, decoder: nn.Module) -> None:
        self.signature, self.config = inspect.signature(decoder.forward), decoder.config

    def read(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """
        Raises:
            CoreInferError: no tokens, or a cache that packs several texts.
        """
        bound = self.signature.bind_partial(*args, **kwargs).arguments
        given = {**bound.pop("kwargs", {}), **bound}
        ids, cache = given.get("input_ids"), given.get("past_key_values")
        tokens = ids if ids is not None else given.get("inputs_embeds")
        if tokens is None or given.get("cache") is not None:
            raise CoreInferError(
                "slim needs input_ids or inputs_embeds in each forward, and no paged cache: call the model "
                "or generate, not generate_batch"
            )
        caching, mask = given.get("use_cache"), given.get("attention_mask")
        if caching is None:
            caching = getattr(self.config, "use_cache", True)
        plain = (
            isinstance(mask, Tensor) and mask.ndim == 2
        )  # a static cache: what the attention needs, no list of tokens
        start = int(cache.get_seq_length()) if cache is not None else 0  # a static cache counts in a tensor
        return Call(ids, mask if plain else None, cache, bool(caching), tokens.shape[0], start, tokens.shape[1])


@dataclass
class Told:
    """What a running ``generate`` was given: a prompt of ``length`` positions in ``rows`` texts, ``ids`` (rows, P)."""

    length: int
    rows: int
    ids: Tensor | None
    mask: Tensor | None
    thread: int
    prompt_tokens: int | None = None  # known with its first forward: a cache may hold a part

    def begin(self, call: Call) -> None:
        """A first forward that continues a cache has the whole text's mask, and all of its ids or the new ones."""
        new_only = call.start and self.mask is not None and self.mask.shape[1] != self.length
        self.prompt_tokens = self.length + (call.start if new_only else 0)


class Borders:
    """Says of each call how many positions are prompt, and whether it starts another prompt."""

    def __init__(self, prompt_tokens: int | None, own_set: bool) -> None:
        """``own_set``: each prompt decides on its own set, so a cache of any other prompt is refused."""
        self.fixed, self.own_set = prompt_tokens, own_set
        self.told: Told | None = None
        self.lengths: WeakKeyDictionary[Cache, int] = WeakKeyDictionary()

    def prompt_of(self, call: Call) -> tuple[int, bool]:
        """(positions that run dense, whether this call starts a prompt)

        Raises:
            CoreInferError: it cannot be known.
        """
        if self.told is not None:
            return self._as_told(self.told, call)
        if call.start == 0 and self.fixed is None and not call.caching:
            raise CoreInferError(
                "slim cannot tell the prompt from its continuation without a cache: pass prompt_tokens= to slim"
            )
        if call.start == 0:
            return call.length if self.fixed is None else self.fixed, True
        known = None if call.cache is None else self.lengths.get(call.cache)
        if known is None and (self.fixed is None or self.own_set):
            raise CoreInferError(
                f"slim saw a continuation of {call.start} cached tokens but not their prompt: "
                + (
                    "run the prompt inside it"
                    if self.own_set
                    else "pass prompt_tokens= to slim, or run the prompt inside it"
                )
            )
        length = known if self.fixed is None else self.fixed
        assert length is not None
        return length, False

    def _as_told(self, told: Told, call: Call) -> tuple[int, bool]:
        if told.thread != get_ident():
            raise CoreInferError("the model is generating in another thread: wait for it, or load the model twice")
        new = told.prompt_tokens is None
        if new:
            told.begin(call)
            if call.start and self.own_set:
                raise CoreInferError(
                    f"a set decided in prefill needs the whole prompt, and {call.start} of its tokens are in a cache: "
                    "leave out past_key_values"
                )
        elif call.start == 0 and call.caching:
            raise CoreInferError(
                "slim counts positions by the key-value cache, and this model's stays empty: give another"
            )
        length = told.prompt_tokens if self.fixed is None else self.fixed
        assert length is not None
        return length, new

    def remember(self, cache: Cache | None, length: int) -> None:
        """A later call that continues this cache continues a prompt of ``length`` positions."""
        if cache is not None:
            self.lengths[cache] = length


def _refuse_own_calls(model: PreTrainedModel, config: Any, options: dict[str, Any]) -> None:
    """Refuse the options with which ``generate`` runs the model beside its decoding: all would be slim, or nothing."""
    if options.get("assistant_model") is model:
        raise CoreInferError("a slim model cannot be its own assistant_model: give another model")
    for name in ("assistant_early_exit", "token_healing"):
        if value := options.get(name, getattr(config, name, None)):
            raise CoreInferError(f"{name} is {value}, which runs a slim model within its own generate: leave it out")


def telling(model: PreTrainedModel, borders: Borders) -> Callable[..., Any]:
    """``model.generate``, which tells ``borders`` its prompt while it runs."""
    run: Callable[..., Any] = model.generate  # type: ignore[assignment]

    @wraps(run)
    def generate(inputs: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        if borders.told is not None:
            raise CoreInferError("the slim model is generating already: let that end, or load the model twice")
        _refuse_own_calls(model, args[0] if args else kwargs.get("generation_config"), kwargs)
        embeds, ids = kwargs.get("inputs_embeds"), inputs if inputs is not None else kwargs.get("input_ids")
        tokens = ids if embeds is None else embeds
        rows, length = (1, 1) if tokens is None else tokens.shape[:2]  # nothing: generate begins with beginning-of-text
        ids = ids if embeds is None else None
        kwargs.setdefault("disable_compile", True)  # a compiled forward would keep the modules that it met first
        borders.told = Told(length, rows, ids, kwargs.get("attention_mask"), get_ident())
        try:
            return run(inputs, *args, **kwargs)
        finally:
            borders.told = None

    return generate
