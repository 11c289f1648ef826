"""Prefill by Transformers, then tokens by steps of the project's own; sets change between two steps at no cost."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.decode.families import read_network, unsupported
from coreinfer.decode.state import State
from coreinfer.decode.steps import Step
from coreinfer.errors import CoreInferError
from coreinfer.neurons import NeuronSet

AHEAD = 4  # steps that the device may be ahead of the reader: what they make beyond an end is thrown away
GRAPHS = 8  # layer budgets whose steps stay captured


class Decoder:
    """Decodes one sequence at a time on a GPU.

    ``begin`` takes a prompt's caches over, ``keep`` says on which neurons the next steps run, ``tokens`` makes them.

    Raises:
        CoreInferError: an architecture that the steps do not know; the message names it.
    """

    def __init__(self, model: PreTrainedModel, context: int | None = None) -> None:
        if why := unsupported(model):
            raise CoreInferError(f"{why} is not decoded by coreinfer's own steps: use Transformers' generate")
        self.model, self.network = model, read_network(model)
        self.context = min(context or self.network.context, self.network.context)
        self.state = State(self.network, self.context)
        self._steps: OrderedDict[tuple[int, ...], Step] = OrderedDict()
        self._step: Step | None = None

    def keep(self, neurons: NeuronSet) -> None:
        """Run the next steps on these neurons. The first set of other layer budgets than before captures a step."""
        self.state.keep(neurons)
        budgets = tuple(neurons.per_layer)
        if budgets not in self._steps:
            self._steps[budgets] = self._captured(budgets)
            if len(self._steps) > GRAPHS:
                self._steps.popitem(last=False)
        self._steps.move_to_end(budgets)
        self._step = self._steps[budgets]

    def _captured(self, budgets: tuple[int, ...]) -> Step:
        """Capturing runs steps; what they move is put back."""
        step, s = Step(self.network, self.state, budgets), self.state
        if s.token.is_cuda:
            before = s.token.clone(), s.position.clone()
            step.capture()
            s.token.copy_(before[0]), s.position.copy_(before[1])
        return step

    def begin(self, ids: Tensor, cache: Any, first: int) -> None:
        """Take over a prefill: ``ids`` (1, P), its cache as Transformers keeps it, and the token that follows.

        Raises:
            CoreInferError: a prompt that leaves no room in the context.
        """
        known = ids.shape[1]
        if known >= self.context:
            raise CoreInferError(f"the prompt has {known} tokens, the decoder's context holds {self.context}")
        caches = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        tokens = torch.cat([ids[0], ids.new_tensor([first])])
        self.state.begin(tokens, caches, known)

    def sample(self, temperature: float, seed: int) -> None:
        """How the next tokens are picked: the likeliest at temperature 0, else drawn."""
        self.state.temperature.fill_(temperature)
        self.state.seed.fill_(seed)

    def tokens(self, count: int) -> Iterator[int]:
        """The next ``count`` tokens, as they are made; the device is never waited for longer than it takes.

        The caller may stop early. Positions beyond the context are the caller's to avoid.
        """
        step, s = self._step, self.state
        assert step is not None, "keep comes first"
        if not s.token.is_cuda:
            for _ in range(count):
                step.run()
                yield int(s.token)
            return
        made = torch.empty(count, dtype=torch.int32, pin_memory=True)
        done: list[Any] = [torch.cuda.Event() for _ in range(count)]  # type: ignore[no-untyped-call]
        for number in range(count + AHEAD):
            if number < count:
                step.run()
                made[number : number + 1].copy_(s.token, non_blocking=True)
                done[number].record()
            if number >= AHEAD:
                done[number - AHEAD].synchronize()
                yield int(made[number - AHEAD])
