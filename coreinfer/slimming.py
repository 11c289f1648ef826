"""Run a plain Hugging Face model on a neuron set: prompt dense, everything after it with gathered weights.

Inside ``with slim(model, neurons):`` ``model.generate``, pipelines and plain calls work unchanged. The first
``prompt_tokens`` positions run dense, every later position on the core neurons only, whatever the calls' lengths:

- a call that lies wholly in the prompt runs the dense weights;
- a call that lies wholly after it runs weights gathered once, when the set was known;
- a call that spans the border (scoring a text in one forward, ``use_cache=False``) runs dense with the activations
  of dropped neurons set to zero after the border: slower, and equal.

A position is counted from the key-value cache, never guessed from the number of tokens in a call.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coreinfer.capture import Capture, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.models import Mlp, find_mlps
from coreinfer.neurons import NeuronSet
from coreinfer.settings import StatisticSettings

Decide = Callable[[NDArray[np.float64], int], NeuronSet]


def gather(module: nn.Module, ids: Tensor, *, rows: bool) -> nn.Module:
    """A copy of a linear module with only the outputs (``rows``) or only the inputs ``ids``; biases included."""
    transposed = isinstance(module, Conv1D)
    weight: Tensor = module.weight  # type: ignore[assignment]
    bias: Tensor | None = module.bias  # type: ignore[assignment]
    axis = int(not rows) ^ int(transposed)  # the axis of ``weight`` that the ids pick from
    slim_weight = weight.detach().index_select(axis, ids).contiguous()
    slim_bias = None if bias is None else (bias.detach()[ids] if rows else bias.detach())
    outputs, inputs = slim_weight.shape[::-1] if transposed else slim_weight.shape
    with torch.device("meta"):  # the class is kept: Falcon's linear layers compute differently from nn.Linear
        kind: Any = type(module)
        made = kind(outputs, inputs) if transposed else kind(inputs, outputs, bias=bias is not None)
    made.weight = nn.Parameter(slim_weight, requires_grad=False)
    made.bias = None if slim_bias is None else nn.Parameter(slim_bias, requires_grad=False)
    made.train(module.training)
    return cast(nn.Module, made)


def gather_mlp(mlp: Mlp, ids: NDArray[np.int32]) -> dict[str, nn.Module]:
    """The modules of ``mlp`` for the neurons ``ids`` only, by name."""
    device = mlp.down.weight.device
    kept = torch.from_numpy(ids.astype(np.int64)).to(device)  # type: ignore[arg-type]
    rows = torch.cat([kept, kept + mlp.width]) if mlp.inputs == ("gate_up_proj",) else kept
    made = {name: gather(mlp.owner.get_submodule(name), rows, rows=True) for name in mlp.inputs}
    return {**made, mlp.output: gather(mlp.down, kept, rows=False)}


class _Switch:
    """Hooks that put the right modules in place before each forward of the model."""

    def __init__(self, model: PreTrainedModel, prompt_tokens: int | None) -> None:
        if any(isinstance(getattr(hook, "__self__", None), _Switch) for hook in model._forward_pre_hooks.values()):
            raise CoreInferError("the model is already slim: leave that context before you enter another")
        self.model, self.mlps = model, find_mlps(model)
        self.fixed_prompt, self.prompt_tokens = prompt_tokens is not None, prompt_tokens
        self.dense = [{name: mlp.owner.get_submodule(name) for name in mlp.names} for mlp in self.mlps]
        self.sliced: list[dict[str, nn.Module]] | None = None
        self.masks: Tensor | None = None
        self.active, self.border, self.shape = False, None, (0, 0)
        self.signature = inspect.signature(model.forward)

    border: int | None

    def set_neurons(self, neurons: NeuronSet) -> None:
        if len(neurons.layers) != len(self.mlps) or neurons.width != self.mlps[0].width:
            raise CoreInferError(
                f"the neuron set is for {len(neurons.layers)} layers of {neurons.width} neurons, the model has "
                f"{len(self.mlps)} of {self.mlps[0].width}: use the model that the artifact was built with"
            )
        self.sliced = [gather_mlp(mlp, ids) for mlp, ids in zip(self.mlps, neurons.layers, strict=True)]
        self.masks = torch.from_numpy(neurons.mask())

    def use(self, sliced: bool) -> None:
        if sliced == self.active:
            return
        assert self.sliced is not None
        for mlp, modules in zip(self.mlps, self.sliced if sliced else self.dense, strict=True):
            for name, module in modules.items():
                setattr(mlp.owner, name, module)
        self.active = sliced

    def named(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments of a call of ``forward`` by name, however they were passed; those left out are missing."""
        call = self.signature.bind_partial(*args, **kwargs).arguments
        return {**call.pop("kwargs", {}), **call}

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        call = self.named(args, kwargs)
        tokens = call.get("input_ids") if call.get("input_ids") is not None else call.get("inputs_embeds")
        if tokens is None:
            raise CoreInferError("slim saw a forward without input_ids or inputs_embeds: pass one of them")
        self.shape = (tokens.shape[0], tokens.shape[1])
        cache = call.get("past_key_values")
        start = int(cache.get_seq_length()) if cache is not None else 0  # a static cache counts in a tensor
        if start == 0 and not self.fixed_prompt:
            asked = call.get("use_cache")
            if not (getattr(self.model.config, "use_cache", True) if asked is None else asked):
                raise CoreInferError(
                    "slim cannot tell the prompt from its continuation without a cache: pass prompt_tokens= to slim"
                )
            self.prompt_tokens = self.shape[1]
        if self.prompt_tokens is None:
            raise CoreInferError(
                f"slim saw a continuation of {start} cached tokens but not their prompt: pass prompt_tokens= to slim, "
                "or run the prompt inside it"
            )
        first_core = self.prompt_tokens - start  # where in this call the core part begins
        self.border = first_core if 0 < first_core < self.shape[1] else None
        if first_core < self.shape[1] and self.sliced is None:
            raise CoreInferError("no neuron set yet: the prompt must be run in one forward before its continuation")
        self.use(first_core <= 0)

    def mask_hook(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
        def mask(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            if self.border is None or self.masks is None:
                return None
            a = args[0].reshape(*self.shape, -1).clone()
            a[:, self.border :] *= self.masks[layer].to(a.device, a.dtype)
            return (a.reshape(args[0].shape), *args[1:])

        return mask


@contextmanager
def slim(
    model: PreTrainedModel,
    neurons: NeuronSet | Decide,
    *,
    prompt_tokens: int | None = None,
    statistic: StatisticSettings | None = None,
) -> Iterator[PreTrainedModel]:
    """Decode on ``neurons`` only, inside this context; on leaving, the model is as it was.

    Args:
        model: any model that ``find_mlps`` understands.
        neurons: the set, or a function of the prompt's normalised statistic (L, F) and its number of tokens, called
            when the first prefill is done (stability-guided).
        prompt_tokens: positions that run dense. None: the length of each forward that starts with an empty cache,
            which is what ``generate`` does with a prompt.
        statistic: which statistic such a function wants; energy unless given.

    Raises:
        CoreInferError: a set of other widths, several prompts for a function, or a continuation before its prompt.
    """
    switch = _Switch(model, prompt_tokens)
    hooks: list[Any] = [model.register_forward_pre_hook(switch.before, with_kwargs=True)]
    hooks += [mlp.down.register_forward_pre_hook(switch.mask_hook(i)) for i, mlp in enumerate(switch.mlps)]
    try:
        if isinstance(neurons, NeuronSet):
            switch.set_neurons(neurons)
            yield model
        else:
            with _decided_by_prefill(model, switch, neurons, statistic or StatisticSettings()):
                yield model
    finally:
        for hook in hooks:
            hook.remove()
        switch.use(False)


@contextmanager
def _decided_by_prefill(
    model: PreTrainedModel, switch: _Switch, decide: Decide, statistic: StatisticSettings
) -> Iterator[None]:
    """Capture the statistic of the first forward that starts with an empty cache, and decide on the set after it."""
    with Capture(model, statistic, switch.mlps) as capture:

        def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if switch.sliced is not None:
                return
            call = switch.named(args, kwargs)
            ids, mask = call.get("input_ids"), call.get("attention_mask")
            if ids is None or ids.shape[0] != 1:
                raise CoreInferError(
                    "a set decided in prefill serves one prompt: run prompts one at a time, by input_ids"
                )
            if ids.shape[1] < (switch.prompt_tokens or 0):
                raise CoreInferError(
                    f"the set needs the prompt of {switch.prompt_tokens} tokens in one forward, and got "
                    f"{ids.shape[1]}: do not split it"
                )
            if not isinstance(mask, Tensor) or mask.ndim != 2:
                mask = None  # a static cache: generate hands over what its attention needs, which is no list of tokens
            bos = model.config.get_text_config().bos_token_id
            capture.expect(valid_tokens(ids, mask, bos if isinstance(bos, int) else None))

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if switch.sliced is None and switch.prompt_tokens is not None:
                assert capture._valid is not None
                switch.set_neurons(decide(capture.shares()[0], int(capture._valid.sum())))
                capture._valid = None

        hooks = [model.register_forward_pre_hook(before, with_kwargs=True)]
        hooks.append(model.register_forward_hook(after, with_kwargs=True))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
