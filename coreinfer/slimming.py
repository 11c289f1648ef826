"""Run a plain Hugging Face model on a neuron set: prompt dense, everything after it with gathered weights.

Inside ``with slim(model, neurons):`` ``model.generate``, pipelines and plain calls work unchanged. The prompt's
positions run dense, every later position on the core neurons only, whatever the calls' lengths:

- a call that lies wholly in the prompt runs the dense weights;
- a call that lies wholly after it runs weights gathered once, when the set was known;
- a call that spans the border (a text scored in one forward, ``use_cache=False``, candidates of assisted decoding) runs
  dense with the activations of dropped neurons set to zero after the border: slower, and equal.

The gathered modules are in place during such a call of the decoder only; between calls the model is as it was.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache, PreTrainedModel

from coreinfer.borders import Borders, Call, Reader, telling
from coreinfer.capture import Reducer
from coreinfer.deciding import Decide, Decision
from coreinfer.errors import CoreInferError
from coreinfer.mlp import gather_mlp, put
from coreinfer.models import bos_of, decoder_of, find_mlps
from coreinfer.neurons import NeuronSet
from coreinfer.settings import StatisticSettings, at_least
from coreinfer.turns import alone


@contextmanager
def slim(
    model: PreTrainedModel,
    neurons: NeuronSet | Decide,
    *,
    prompt_tokens: int | None = None,
    statistic: StatisticSettings | None = None,
    ends: bool = False,
) -> Iterator[PreTrainedModel]:
    """Decode on ``neurons`` only, inside this context; on leaving, the model is as it was.

    Args:
        model: any model that ``find_mlps`` understands.
        neurons: the set, or a function of a prompt's normalised statistic (L, F) and its number of tokens, called for
            each prompt when its prefill is done (stability-guided).
        prompt_tokens: positions that run dense. None: what ``generate`` is given; in calls of the model itself, the
            length of each forward that starts with an empty cache.
        statistic: which statistic such a function wants; energy unless given.
        ends: whether the context is left without a caller's doing, so that other users of the model may wait for it.

    Raises:
        CoreInferError: a set of other widths, several prompts at once for a function, a continuation before its prompt,
            a model without a key-value cache, or one that is in use.
    """
    if prompt_tokens is not None:
        at_least("prompt_tokens", prompt_tokens, 0 if isinstance(neurons, NeuronSet) else 1)
    with alone(decoder_of(model), "slim", ends):
        switch = _Switch(model, neurons, prompt_tokens, statistic or StatisticSettings())
        before = model.__dict__.get("generate")
        switch.attach()
        try:
            model.__dict__["generate"] = telling(model, switch.borders)
            yield model
        finally:
            switch.detach()
            model.__dict__.pop("generate", None)
            if before is not None:
                model.__dict__["generate"] = before


class _Switch:
    """Hooks that put the right modules in place before each forward of the decoder, and the dense ones after it."""

    def __init__(
        self,
        model: PreTrainedModel,
        neurons: NeuronSet | Decide,
        prompt_tokens: int | None,
        statistic: StatisticSettings,
    ) -> None:
        self.mlps, self.decoder = find_mlps(model), decoder_of(model)
        _check_cache(model, self.decoder)
        self.reader = Reader(self.decoder)
        self.sliced: list[dict[str, nn.Module]] | None = None
        self.masks: list[Tensor] = []
        self.call: Call | None = None  # that runs now
        self.prompt = self.border = 0  # positions of the prompt; of this call, if it spans the prompt's end
        self.aside, self.hooks = False, list[Any]()
        self.decision: Decision | None = None
        if isinstance(neurons, NeuronSet):
            self._gather(neurons)
        else:
            self.decision = Decision(neurons, Reducer(self.mlps, statistic), self.decoder, bos_of(model))
        self.borders = Borders(prompt_tokens, self.decision is not None)

    def attach(self) -> None:
        self.hooks = [self.decoder.register_forward_pre_hook(self._before, with_kwargs=True)]
        self.hooks.append(self.decoder.register_forward_hook(self._after, always_call=True))
        self.hooks += [mlp.down.register_forward_pre_hook(self._mask_of(i)) for i, mlp in enumerate(self.mlps)]
        if self.decision is not None:
            self.decision.reducer.attach()

    def detach(self) -> None:
        for hook in self.hooks:
            hook.remove()
        if self.decision is not None:
            self.decision.reducer.detach()
        self._put(None)

    def _put(self, sliced: list[dict[str, nn.Module]] | None) -> None:
        for layer, mlp in enumerate(self.mlps):
            put(mlp, mlp.modules if sliced is None else sliced[layer])

    def _gather(self, neurons: NeuronSet) -> None:
        if len(neurons.layers) != len(self.mlps) or neurons.width != self.mlps[0].width:
            raise CoreInferError(
                f"the neuron set is for {len(neurons.layers)} layers of {neurons.width} neurons, the model has "
                f"{len(self.mlps)} of {self.mlps[0].width}: use the model that the artifact was built with"
            )
        self.sliced = [gather_mlp(mlp, ids) for mlp, ids in zip(self.mlps, neurons.layers, strict=True)]
        self.masks = [torch.from_numpy(~row).to(mlp.device) for row, mlp in zip(neurons.mask(), self.mlps, strict=True)]

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.aside:
            return
        call = self.reader.read(args, kwargs)
        self.prompt, new = self.borders.prompt_of(call)
        if new and self.decision is not None:
            self._decide_on(call, self.decision)
        first_core = self.prompt - call.start  # where in this call the core part begins
        self.call, self.border = call, first_core if 0 < first_core < call.length else 0
        if first_core <= 0:
            assert self.sliced is not None
            self._put(self.sliced)

    def _decide_on(self, call: Call, decision: Decision) -> None:
        """Have the call watched, if it is the prompt and nothing else; else run the prompt by itself first."""
        ids, mask = decision.prompt(call, self.borders.told, self.prompt)
        if self.sliced is not None and decision.knows(ids, mask):
            return
        self.sliced = None  # its memory goes before the next set's comes
        self.borders.lengths.clear()
        if (call.rows, call.length) == (1, self.prompt):
            decision.watch(ids, mask)
            return
        self.aside = True
        try:
            self._gather(decision.run(ids, mask))
        finally:
            self.aside = False

    def _after(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self.aside:
            return
        call, self.call, self.border = self.call, None, 0
        self._put(None)
        if output is None or call is None:
            return  # the forward failed
        parts = output.values() if hasattr(output, "values") else output
        cache = next((part for part in parts if isinstance(part, Cache)), None)
        if cache is None and call.caching:
            raise CoreInferError(
                f"{type(module).__name__} gives no key-value cache, by which slim counts positions: give another model"
            )
        if self.decision is not None and (neurons := self.decision.result()) is not None:
            self._gather(neurons)
        self.borders.remember(cache, self.prompt)  # last: a prompt whose decision failed has no continuation

    def _mask_of(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def mask(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if not self.border or self.aside or self.call is None:
                return None
            a = args[0].reshape(self.call.rows, self.call.length, -1).clone()
            a[:, self.border :].masked_fill_(self.masks[layer], 0)
            return (a.reshape(args[0].shape), *args[1:])

        return mask


def _check_cache(model: PreTrainedModel, decoder: nn.Module) -> None:
    for part in (model, decoder):
        if "past_key_values" not in inspect.signature(part.forward).parameters:
            raise CoreInferError(
                f"{type(part).__name__} takes no past_key_values, by which slim counts: give another model"
            )
