"""Finding neurons in every family, and refusing what is not understood."""

from typing import Any

import pytest
import torch
from families import FAMILIES, HIDDEN, LAYERS, MODULES, WIDTH, build, down_modules
from families import one_thread as one_thread
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    BitNetConfig,
    Gemma3nTextConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2MoeConfig,
)

from coreinfer.errors import CoreInferError
from coreinfer.mlp import Mlp, down_rows
from coreinfer.models import context_length, find_mlps

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_layer_has_its_neurons_found(name: str) -> None:
    model = build(name)
    mlps, (inputs, output) = find_mlps(model), MODULES[name]
    assert len(mlps) == LAYERS
    assert {mlp.width for mlp in mlps} == {WIDTH}
    assert [mlp.down for mlp in mlps] == down_modules(model, name)
    for layer, mlp in enumerate(mlps):
        assert mlp.names == tuple(path.rsplit(".", 1)[-1] for path in (*inputs, output))
        found = [path for path, module in model.named_modules() if module is mlp.owner]
        assert f".{layer}" in found[0]
        assert down_rows(mlp).shape == (WIDTH, HIDDEN)
    assert context_length(model) == 64


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**TINY, intermediate_size=48, num_local_experts=2),
        Qwen2MoeConfig(
            **TINY, moe_intermediate_size=16, shared_expert_intermediate_size=48, num_experts=2, num_experts_per_tok=1
        ),
    ],
)
def test_mixtures_of_experts_are_refused_by_name(config: PreTrainedConfig) -> None:
    model = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    with pytest.raises(CoreInferError, match=type(model).__name__) as refusal:
        find_mlps(model)
    assert "mixtures of experts" in str(refusal.value)


def of(config: PreTrainedConfig) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


@pytest.mark.parametrize(
    "config",
    [
        BitNetConfig(**TINY, intermediate_size=48),  # a norm over all neurons
        Gemma3nTextConfig(
            **TINY, intermediate_size=[48, 48], hidden_size_per_layer_input=8, vocab_size_per_layer_input=96,
            activation_sparsity_pattern=[0.0, 0.95], num_kv_shared_layers=0, laurel_rank=4, head_dim=8,
        ),  # the largest of all neurons, in its second layer only
    ],
    ids=["BitNet", "Gemma3n"],
)  # fmt: skip
def test_neurons_that_depend_on_each_other_are_refused_by_name(config: PreTrainedConfig) -> None:
    model = of(config)
    with pytest.raises(
        CoreInferError, match=rf"the MLPs of {type(model).__name__} are not understood: \w+MLP computes"
    ):
        find_mlps(model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", FAMILIES)
def test_the_trial_passes_in_any_dtype_and_leaves_the_model_whole(name: str, dtype: torch.dtype) -> None:
    model = build(name)
    nn.Module.to(model, dtype)
    model.train()
    state, modules = {k: v.clone() for k, v in model.state_dict().items()}, list(model.named_modules())
    assert len(find_mlps(model)) == LAYERS
    assert list(model.named_modules()) == modules
    assert all(module.training and not module._forward_hooks for module in model.modules())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_a_model_is_tried_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Mlp] = []

    def count(mlp: Mlp) -> bool:
        tried.append(mlp)
        return True

    monkeypatch.setattr("coreinfer.models.is_separable", count)
    model = build("Llama")
    for _ in range(3):
        find_mlps(model)
    assert len(tried) == 1, "both layers are of one kind"
    model.get_submodule("model.layers.1.mlp").down_proj = nn.Linear(WIDTH, HIDDEN)
    find_mlps(model)
    assert len(tried) == 2, "another module may compute something else"


class Noted(nn.Linear):
    """A linear layer with a state of its own."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("scale", torch.ones(1))


class Adapted(nn.Linear):
    """A linear layer with an adapter."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.adapter = nn.Linear(inputs, outputs)


class Rounded(nn.Linear):
    """A linear layer that scales by all of its weights, as quantisation on the fly does."""

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight.abs().mean()
        return super().forward(x) * scale


@pytest.mark.parametrize("kind", [Noted, Adapted, Rounded])
def test_linear_layers_that_cannot_be_gathered_are_refused(kind: type[nn.Linear]) -> None:
    model = build("Llama")
    for layer in range(LAYERS):
        model.get_submodule(f"model.layers.{layer}.mlp").down_proj = kind(WIDTH, HIDDEN)
    with pytest.raises(CoreInferError, match="LlamaForCausalLM"):
        find_mlps(model)


def test_two_mlps_in_one_layer_are_none_in_another() -> None:
    model = build("Llama")
    layers: Any = model.get_submodule("model.layers")
    layers[0].second, layers[1].mlp = layers[1].mlp, nn.Identity()
    with pytest.raises(CoreInferError, match="found 2 of a known layout in 2 layers"):
        find_mlps(model)


def test_layers_of_unequal_width_are_refused() -> None:
    model = build("Llama")
    mlp = model.get_submodule("model.layers.1.mlp")
    for name, sizes in (("gate_proj", (32, 40)), ("up_proj", (32, 40)), ("down_proj", (40, 32))):
        setattr(mlp, name, nn.Linear(*sizes))
    with pytest.raises(CoreInferError, match="LlamaForCausalLM"):
        find_mlps(model)
