"""A neuron set decided in prefill, from the prompt's own statistic."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.borders import Call, Told
from coreinfer.capture import Reducer, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.neurons import NeuronSet

Decide = Callable[[NDArray[np.float64], int], NeuronSet]


class Decision:
    """Watches a prompt's prefill and hands its statistic to ``decide``.

    A forward that is the prompt and nothing else is watched in passing. Else (chunks, beams, candidates behind it) the
    prompt runs once more, by itself.
    """

    def __init__(self, decide: Decide, reducer: Reducer, decoder: Any, bos: int | None) -> None:
        self.decide, self.reducer, self.decoder, self.bos = decide, reducer, decoder, bos
        self.tokens: Tensor | None = None  # of the prompt that was decided on, (1, P)
        self._watched: tuple[Tensor, int] | None = None  # that prompt and how many of its tokens count

    def prompt(self, call: Call, told: Told | None, length: int) -> tuple[Tensor, Tensor]:
        """The prompt that a call starts, ids and mask (1, length).

        Raises:
            CoreInferError: several prompts, no ids, or not the whole prompt.
        """
        ids, rows = (call.ids, call.rows) if told is None else (told.ids, told.rows)
        if ids is None or rows != 1:
            raise CoreInferError("a set decided in prefill serves one prompt: run prompts one at a time, by input_ids")
        if ids.shape[1] < length:
            raise CoreInferError(
                f"the set needs the prompt of {length} tokens in one forward, and got {ids.shape[1]}: do not split it"
            )
        ids = ids[:, :length].to(self.decoder.device)
        mask = call.mask if told is None or told.mask is None else told.mask
        return ids, torch.ones_like(ids) if mask is None else mask[:1, :length].to(ids.device)

    def knows(self, ids: Tensor, mask: Tensor) -> bool:
        """Whether the last decision was on this very prompt."""
        return self.tokens is not None and torch.equal(self.tokens, ids[mask.bool()])

    def watch(self, ids: Tensor, mask: Tensor) -> None:
        """The call that comes is the prompt: reduce it in passing."""
        valid = valid_tokens(ids, mask, self.bos)
        self.reducer.expect(valid)
        self._watched = ids[mask.bool()], int(valid.sum())

    @torch.no_grad()
    def run(self, ids: Tensor, mask: Tensor) -> NeuronSet:
        """Run the prompt by itself, without its padding, and decide."""
        real = ids[mask.bool()][None]
        self.watch(real, torch.ones_like(real))
        self.decoder(input_ids=real, use_cache=False)
        made = self.result()
        assert made is not None
        return made

    def result(self) -> NeuronSet | None:
        """The set, if a watched prompt has just run."""
        if self._watched is None:
            return None
        (self.tokens, count), self._watched = self._watched, None
        return self.decide(self.reducer.shares()[0], count)
