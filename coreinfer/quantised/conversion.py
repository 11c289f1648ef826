"""A model's linear modules become quantised ones, one after another: no moment holds both of more than one."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from coreinfer.errors import CoreInferError
from coreinfer.quantised.linear import QuantisedLinear
from coreinfer.quantised.packed import quantised

HEAD_BITS = 8  # each of its rows is a word's logit, which 4 bits would move as far as many layers do together


def quantise_modules(decoder: nn.Module, downs: set[str], bits: int, device: str) -> None:
    """Every linear module of the decoder; ``downs`` names those that are stored by neuron. The results are on
    ``device``, where they are computed.

    Raises:
        CoreInferError: linear modules of a kind of their own, or rows that groups do not divide.
    """
    found = {path: type(x) for path, x in decoder.named_modules() if isinstance(x, nn.Linear | Conv1D)}
    if odd := [f"{path} is a {kind.__name__}" for path, kind in found.items() if kind is not nn.Linear]:
        raise CoreInferError(f"{odd[0]}, which is not quantised: give the dtype float32 or bfloat16")
    for path in found:
        owner, _, name = path.rpartition(".")
        parent = decoder.get_submodule(owner)
        try:
            setattr(parent, name, narrowed(getattr(parent, name), bits, device, by_input=path in downs))
        except CoreInferError as error:
            raise CoreInferError(f"{path}: {error}") from error


@torch.no_grad()
def narrowed(module: nn.Linear, bits: int, device: str, by_input: bool = False) -> QuantisedLinear:
    """The same linear function, quantised."""
    weight = module.weight.detach().to(device)
    bias = None if module.bias is None else module.bias.detach().to(device)
    made = QuantisedLinear(quantised(weight.T if by_input else weight, bits), bias, by_input)
    made.train(module.training)
    return made
