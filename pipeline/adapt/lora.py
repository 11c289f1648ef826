"""Adapters of a low rank on every linear layer, with peft; they are merged before a model is saved."""

import warnings
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coreinfer.errors import CoreInferError
from coreinfer.mlp import Mlp, down_rows


def check_peft() -> None:
    """Refuse --lora where peft is missing."""
    if find_spec("peft") is None:
        raise CoreInferError("--lora needs the package peft: pip install 'coreinfer[adapt]', or leave out --lora")


class Adapters:
    """LoRA in place: ``model`` itself computes with its adapters from now on, and they alone train."""

    def __init__(self, model: PreTrainedModel, rank: int, seed: int) -> None:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(seed)
        wanted = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear")
        with warnings.catch_warnings(action="ignore"):  # what its next version will call differently, and the like
            self._made: Any = get_peft_model(model, wanted)
        self._made.eval()

    def off(self) -> AbstractContextManager[None]:
        """Inside, the model is what it was."""
        return cast(AbstractContextManager[None], self._made.disable_adapter())

    def merge(self) -> PreTrainedModel:
        """The model with the adapters added to its weights, and gone."""
        return cast(PreTrainedModel, self._made.merge_and_unload())


def rows_now(mlp: Mlp) -> Tensor:
    """The output projection with what an adapter adds to it, a row a neuron: (F, H)."""
    outer: Any = mlp.owner._modules[mlp.output]
    if outer is mlp.down:
        return down_rows(mlp).detach()
    added: Tensor = outer.get_delta_weight("default").detach()
    return down_rows(mlp).detach() + (added if isinstance(mlp.down, Conv1D) else added.T)
