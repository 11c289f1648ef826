"""Random models of well-known sizes: speed does not depend on what the weights say."""

from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig, PreTrainedConfig, PreTrainedModel, Qwen3Config

from coreinfer.errors import CoreInferError

_LLAMA3: dict[str, Any] = {"vocab_size": 128_256, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
_OPT: dict[str, Any] = {"vocab_size": 50_272, "max_position_embeddings": 2048, "dropout": 0.0}

# Sizes from the models' published config.json.
SHAPES: dict[str, PreTrainedConfig] = {
    "llama-3.1-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, **_LLAMA3,
    ),
    "llama-3.2-1b": LlamaConfig(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, num_key_value_heads=8,
        head_dim=64, tie_word_embeddings=True, **_LLAMA3,
    ),
    "llama-3.2-3b": LlamaConfig(
        hidden_size=3072, intermediate_size=8192, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8,
        head_dim=128, tie_word_embeddings=True, **_LLAMA3,
    ),
    "qwen3-0.6b": Qwen3Config(
        vocab_size=151_936, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28, num_attention_heads=16,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, max_position_embeddings=8192,
    ),
    "opt-6.7b": OPTConfig(
        hidden_size=4096, ffn_dim=16_384, num_hidden_layers=32, num_attention_heads=32, word_embed_proj_dim=4096, **_OPT
    ),
    "opt-125m": OPTConfig(
        hidden_size=768, ffn_dim=3072, num_hidden_layers=12, num_attention_heads=12, word_embed_proj_dim=768, **_OPT
    ),
}  # fmt: skip


def check_shape(shape: str) -> None:
    """
    Raises:
        CoreInferError: no such shape.
    """
    if shape not in SHAPES:
        raise CoreInferError(f"--shape is {shape!r}: choose one of {', '.join(SHAPES)}")


def random_model(shape: str, dtype: torch.dtype, device: str) -> PreTrainedModel:
    """A model of that shape, made on the device.

    Raises:
        CoreInferError: no such shape, or no room for it.
    """
    check_shape(shape)
    torch.manual_seed(0)
    try:
        with torch.device(device):
            made: Any = AutoModelForCausalLM.from_config(SHAPES[shape], dtype=dtype)  # type: ignore[no-untyped-call]
    except (torch.OutOfMemoryError, RuntimeError) as error:
        raise CoreInferError(f"no room for the shape {shape!r} on {device}: choose a smaller one") from error
    made.train(False)
    model: PreTrainedModel = made
    return model


def random_prompt(model: PreTrainedModel, tokens: int) -> Tensor:
    """Ids of so many tokens of the model's vocabulary, where the model is: (1, T)."""
    config: Any = model.config.get_text_config()
    return torch.randint(5, min(1000, int(config.vocab_size)), (1, tokens), device=model.device)
