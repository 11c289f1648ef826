"""A tiny model of each family that the project understands, seeded; no zero bias or unit norm hides a fault."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from coreinfer.threads import running_on

HIDDEN, LAYERS, WIDTH, VOCAB, CONTEXT = 32, 2, 48, 96, 64
PAD, BOS = 0, 1
_TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": None}
_SIZES: dict[str, Any] = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
_LLAMA: dict[str, Any] = {
    **_TOKENS,
    **_SIZES,
    "intermediate_size": WIDTH,
    "max_position_embeddings": CONTEXT,
    "num_key_value_heads": 2,
}
_WINDOW: dict[str, Any] = {"sliding_window": 16}  # shorter than the tests' texts, so that it matters

FAMILIES: dict[str, PreTrainedConfig] = {
    "OPT": OPTConfig(
        **_TOKENS, **_SIZES, ffn_dim=WIDTH, word_embed_proj_dim=HIDDEN, max_position_embeddings=CONTEXT, dropout=0.0
    ),
    "Llama": LlamaConfig(**_LLAMA, mlp_bias=True, attention_bias=True),
    "Mistral": MistralConfig(**_LLAMA, **_WINDOW),
    "Qwen2": Qwen2Config(**_LLAMA),
    "Qwen3": Qwen3Config(**_LLAMA, head_dim=8),
    "Gemma2": Gemma2Config(**_LLAMA, **_WINDOW, head_dim=8, query_pre_attn_scalar=8),
    "Gemma3": Gemma3TextConfig(**_LLAMA, **_WINDOW, head_dim=8, query_pre_attn_scalar=8),
    "Phi3": Phi3Config(**_LLAMA, original_max_position_embeddings=CONTEXT),
    "GPTNeoX": GPTNeoXConfig(**_TOKENS, **_SIZES, intermediate_size=WIDTH, max_position_embeddings=CONTEXT),
    "GPT2": GPT2Config(
        **_TOKENS,
        n_embd=HIDDEN,
        n_layer=LAYERS,
        n_head=4,
        n_inner=WIDTH,
        n_positions=CONTEXT,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
    ),
    "Falcon": FalconConfig(
        **_TOKENS, **_SIZES, ffn_hidden_size=WIDTH, bias=True, alibi=False, max_position_embeddings=CONTEXT
    ),
}
# Where each family keeps its neurons, written out by hand: (input projections, output projection) within a layer.
MODULES: dict[str, tuple[tuple[str, ...], str]] = {
    **dict.fromkeys(
        ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3"), (("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")
    ),
    "OPT": (("fc1",), "fc2"),
    "Phi3": (("mlp.gate_up_proj",), "mlp.down_proj"),
    "GPTNeoX": (("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h"),
    "GPT2": (("mlp.c_fc",), "mlp.c_proj"),
    "Falcon": (("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h"),
}


def twice(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same with twice the hidden size, 64, which groups of quantised weights divide."""
    wide: Any = deepcopy(config)
    for size in ("hidden_size", "head_dim", "word_embed_proj_dim", "query_pre_attn_scalar"):
        if config.to_dict().get(size):
            setattr(wide, size, 2 * getattr(config, size))
    return cast(PreTrainedConfig, wide)


def build(name: str, config: PreTrainedConfig | None = None) -> PreTrainedModel:
    """The family's tiny model, float32, in eval mode; the same weights at every call, a config of its own."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
        deepcopy(config or FAMILIES[name]), dtype=torch.float32
    )
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(parameter + 0.2 * noise if parameter.ndim == 1 else 0.2 * noise)
    model.train(False)
    return model


def down_modules(model: PreTrainedModel, name: str) -> list[nn.Module]:
    """The output projection of each layer, by the names above and nothing else."""
    return [module for path, module in model.named_modules() if path.endswith("." + MODULES[name][1])]


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    """Random ids (batch, length), neither padding nor beginning-of-text."""
    return torch.randint(2, VOCAB, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tiny products on several threads wait for each other: ten times slower beside any other busy process."""
    with running_on(1):
        yield
