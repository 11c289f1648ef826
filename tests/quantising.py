"""Tiny quantised models whose floats are float32, so that equality is checked tightly, and their dense equals."""

from typing import Any

import pytest
import torch
from families import FAMILIES, build, twice
from torch import nn
from transformers import PreTrainedModel

from coreinfer import models
from coreinfer.decode.families import unsupported
from coreinfer.models import quantise
from coreinfer.quantised.linear import QuantisedLinear

KNOWN = [name for name in FAMILIES if unsupported(build(name)) is None]
known = pytest.mark.parametrize("name", KNOWN)
both = pytest.mark.parametrize("dtype", ["int8", "int4"])


@pytest.fixture(autouse=True)
def float32_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not quantised stays float32, whatever this machine prefers."""
    monkeypatch.setattr(models, "default_dtype", lambda device: torch.float32)


def narrow(name: str, dtype: str) -> PreTrainedModel:
    """The family's tiny model with twice its hidden size, quantised."""
    return quantise(build(name, twice(FAMILIES[name])), dtype, "cpu")


@torch.no_grad()
def dense_equal(name: str, model: PreTrainedModel) -> PreTrainedModel:
    """A plain model whose weights are what those of a quantised ``model`` stand for."""
    made: Any = build(name, twice(FAMILIES[name]))
    made.get_output_embeddings().weight = nn.Parameter(made.get_output_embeddings().weight.clone())  # may be tied
    for path, module in model.named_modules():
        if isinstance(module, QuantisedLinear):
            weight = module.packed.dequantised()
            made.get_submodule(path).weight.copy_(weight.T if module.by_input else weight)
    return made  # type: ignore[no-any-return]
