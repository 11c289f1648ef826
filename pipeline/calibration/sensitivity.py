"""How much the loss minds each neuron, beyond what its down column says.

Dropping a neuron changes a layer's output by a * column, and the loss, to first order, by a * g: g is the loss's
gradient by the activation. So E[a^2] E[g^2] stands for the loss where energy, E[a^2] ||column||^2, stands for the
output's length. The ratio of the two, E[g^2] / ||column||^2, turns one ranking into the other; a power of it between 0
and 1 trusts the measured gradients less. Which power costs least is measured.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from coreinfer.capture import column_energies
from coreinfer.mlp import Mlp, watching
from coreinfer.models import decoder_of, find_mlps
from coreinfer.turns import alone
from pipeline.index import short

POWERS = (0.0, 0.25, 0.5, 1.0)
TOKENS = 2048  # of a forward and backward
TINY = 1e-30


def sensitivity(
    model: PreTrainedModel, ids: Tensor, columns: bool = True, tick: Callable[[int], Any] = lambda n: None
) -> NDArray[np.float64]:
    """E[g^2] / ||down column||^2 of each neuron over texts ``ids`` (n, T), their first token left out, (L, F); without
    ``columns``, for a statistic that does not hold them, E[g^2].

    g is the gradient of the text's summed next-token loss, nats. Scaled to a mean of 1 in each layer.
    """
    mlps = find_mlps(model)
    total = torch.zeros(len(mlps), mlps[0].width, dtype=torch.float64)
    with alone(decoder_of(model), "sensitivity", ends=True), _activations(model, mlps) as made:
        for some in torch.split(ids, max(1, TOKENS // ids.shape[1])):
            total += _squares(model, some.to(model.device), made).cpu()
            tick(len(some))
    held = column_energies(mlps).double().cpu() if columns else torch.ones_like(total)
    ratio = (total / held.clamp_min(TINY)).numpy()
    return np.asarray(ratio / np.maximum(ratio.mean(-1, keepdims=True), TINY))


def weights(ratio: NDArray[np.float64], power: float) -> NDArray[np.float32]:
    """The ratio (L, F) to a power, as it will be stored; power 0 is 1 everywhere."""
    return short(ratio**power)


def _squares(model: PreTrainedModel, ids: Tensor, made: list[Tensor]) -> Tensor:
    """The sum over tokens of g^2, (L, F)."""
    made.clear()
    with torch.enable_grad():
        logits = model(input_ids=ids, use_cache=False).logits
        loss = cross_entropy(logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    found = torch.autograd.grad(loss, made)
    shaped = (g.reshape(*ids.shape, -1)[:, 1:].float() for g in found)  # OPT hands over (B * T, F)
    return torch.stack([g.square().sum((0, 1), dtype=torch.float64) for g in shaped])


@contextmanager
def _activations(model: PreTrainedModel, mlps: Sequence[Mlp]) -> Iterator[list[Tensor]]:
    """Each layer's activations, (B, T, F), as a forward makes them, with gradients but none for weights."""
    made = list[Tensor]()

    def keep(module: nn.Module, args: tuple[Any, ...]) -> None:
        made.append(args[0])

    def begin(module: nn.Module, args: tuple[Any, ...], out: Tensor) -> Tensor:
        return out.detach().requires_grad_()

    trained = [p for p in model.parameters() if p.requires_grad]
    first = model.get_input_embeddings().register_forward_hook(begin)
    try:
        model.requires_grad_(False)
        with watching(mlps, lambda layer: keep):
            yield made
    finally:
        first.remove()
        for parameter in trained:
            parameter.requires_grad_(True)
