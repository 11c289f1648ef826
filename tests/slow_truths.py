"""What slim decoding must equal, the slow way: teacher forcing, activations masked by hooks, naive generation."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, WIDTH
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from coreinfer.neurons import NeuronSet, top

PROMPT, TOTAL = 9, 26  # longer than the sliding windows of the tiny models
families = pytest.mark.parametrize("name", FAMILIES)


def some(budgets: tuple[int, ...] = (20, 13), width: int = WIDTH, seed: int = 3) -> NeuronSet:
    """A random set; layers keep unequal numbers."""
    return top(np.random.default_rng(seed).random((len(budgets), width)), np.array(budgets))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: Tensor, **kwargs: Any) -> Tensor:
    out: Tensor = model(input_ids=ids, **kwargs).logits
    return out


@torch.no_grad()
def stepwise(model: PreTrainedModel, ids: Tensor, prompt: int) -> Tensor:
    """Teacher-forced logits (B, T, V): the prompt in one call, then token by token with the cache."""
    out = model(input_ids=ids[:, :prompt], use_cache=True)
    seen = [out.logits]
    for i in range(prompt, ids.shape[1]):
        out = model(input_ids=ids[:, i : i + 1], past_key_values=out.past_key_values, use_cache=True)
        seen.append(out.logits)
    return torch.cat(seen, 1)


@torch.no_grad()
def naive(
    model: PreTrainedModel, downs: list[nn.Module], neurons: NeuronSet, ids: Tensor, prompt: int | list[int]
) -> Tensor:
    """Logits of one text (1, T, V) with dropped neurons zeroed from ``prompt`` on, or at these positions, by hooks."""
    core = list(range(prompt, ids.shape[1])) if isinstance(prompt, int) else prompt

    def zero(kept: NDArray[np.int32]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            a = args[0].reshape(ids.shape[1], -1).clone()
            dropped = sorted(set(range(a.shape[1])) - set(kept.tolist()))
            for position in core:
                a[position, dropped] = 0
            return (a.reshape(args[0].shape),)

        return hook

    hooks = [d.register_forward_pre_hook(zero(kept)) for d, kept in zip(downs, neurons.layers, strict=True)]
    try:
        return logits(model, ids, use_cache=False)
    finally:
        for handle in hooks:
            handle.remove()


def greedy(model: PreTrainedModel, downs: list[nn.Module], neurons: NeuronSet, ids: Tensor, new: int) -> list[int]:
    prompt = ids.shape[1]
    for _ in range(new):
        ids = torch.cat([ids, naive(model, downs, neurons, ids, prompt)[:, -1:].argmax(-1)], 1)
    return [int(i) for i in ids[0]]


def generated(model: PreTrainedModel, ids: Tensor, new: int = 12, **kwargs: Any) -> list[list[int]]:
    kwargs = {"attention_mask": torch.ones_like(ids), **kwargs}
    out: Tensor = model.generate(ids, max_new_tokens=new, do_sample=False, **kwargs)  # type: ignore[operator]
    return [[int(i) for i in row] for row in out]


def beams(model: PreTrainedModel, downs: list[nn.Module], neurons: NeuronSet, ids: Tensor, new: int) -> list[int]:
    """Beam search of three without a cache: every forward is the whole text, its dropped neurons zeroed by hooks."""
    prompt, length = ids.shape[1], [0]

    def zero(dropped: NDArray[np.bool_]) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Tensor]]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor]:
            a = args[0].reshape(-1, length[0], len(dropped)).clone()
            a[:, prompt:, torch.from_numpy(dropped)] = 0
            return (a.reshape(args[0].shape),)

        return hook

    def measure(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        length[0] = kwargs["input_ids"].shape[1]

    hooks = [d.register_forward_pre_hook(zero(~row)) for d, row in zip(downs, neurons.mask(), strict=True)]
    hooks.append(model.register_forward_pre_hook(measure, with_kwargs=True))
    try:
        return generated(model, ids, new, num_beams=3, use_cache=False)[0]
    finally:
        for handle in hooks:
            handle.remove()
