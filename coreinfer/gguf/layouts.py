"""What llama.cpp calls a family, and what keeps a model from being written for it."""

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from coreinfer.decode.families import unsupported
from coreinfer.models import decoder_of


@dataclass(frozen=True)
class Layout:
    """How a llama.cpp architecture differs from the others, as its source has it (``src/models``).

    Attributes:
        name: of the architecture.
        act: the activation that its graph applies to the gate.
        widths: whether each layer may have an MLP width of its own.
        biases: whether it knows biases beside those of queries, keys and values.
        neighbours: whether rope turns dimensions 2 i and 2 i + 1 of a head together, rather than i and i + D / 2.
        windows: whether it knows sliding windows.
        ropes: the kinds of positions that it can be told.
        capped: whether it always caps logits and attention scores, has windows, and its embedding as its head.
        unusual: number of layers at which it scales attention by hidden size over heads instead of the head's size.
    """

    name: str
    act: str = "silu"
    widths: bool = False
    biases: bool = False
    neighbours: bool = False
    windows: bool = False
    ropes: tuple[str, ...] = ("default", "linear")
    capped: bool = False
    unusual: int = -1


DECI = Layout("deci", widths=True, biases=True, neighbours=True, ropes=("default", "linear", "llama3"))
GELU = "gelu_pytorch_tanh"
LAYOUTS = {
    **dict.fromkeys(("llama", "mistral", "qwen2", "phi3"), DECI),
    "qwen3": Layout("qwen3"),
    "gemma2": Layout("gemma2", GELU, windows=True, ropes=("default",), capped=True, unusual=46),
    "gemma3_text": Layout("gemma3", GELU, windows=True, unusual=62),
}


def layout_of(model: PreTrainedModel) -> Layout:
    """Of a model that can be written (``unwritable``)."""
    return LAYOUTS[model.config.get_text_config().model_type]


def unwritable(model: PreTrainedModel) -> str | None:
    """Why llama.cpp cannot run this model, in words; None if it can."""
    config: Any = model.config.get_text_config()
    if config.model_type not in LAYOUTS:
        return f"the architecture {config.model_type!r}"
    return unsupported(model) or _odd(model, config, LAYOUTS[config.model_type])


def _odd(model: Any, config: Any, layout: Layout) -> str | None:
    """What the architecture's graph computes otherwise."""
    act = getattr(config, "hidden_activation", None) or config.hidden_act
    if act != layout.act:
        return f"the activation {act!r}: its graph of {config.model_type} has {layout.act!r} alone"
    ropes = list(rope_parameters(config).values())
    if odd := [one["rope_type"] for one in ropes if one["rope_type"] not in layout.ropes]:
        return f"positions of the kind {odd[0]!r} in {config.model_type}"
    parts = [getattr(config, "partial_rotary_factor", None), *(one.get("partial_rotary_factor") for one in ropes)]
    if any(part not in (None, 1.0) for part in parts):
        return "positions that turn a part of each head"
    attention: Any = decoder_of(model).layers[0].self_attn  # type: ignore[index, union-attr]
    heads = config.num_attention_heads
    over = config.hidden_size // heads if config.num_hidden_layers == layout.unusual else attention.head_dim
    if abs(attention.scaling * over**0.5 - 1) > 1e-3:
        return f"attention scores scaled by {attention.scaling:.4g}"
    return _odd_biases(model, layout) or (_odd_gemma_2(model, config) if layout.capped else None)


def _odd_biases(model: Any, layout: Layout) -> str | None:
    if model.get_output_embeddings().bias is not None:
        return "a head with a bias"
    allowed = ("q_proj", "k_proj", "v_proj", "qkv_proj")
    for name, _ in decoder_of(model).named_parameters():
        if name.endswith("_proj.bias") and not layout.biases and name.split(".")[-2] not in allowed:
            return f"the bias {name}"
    return None


def _odd_gemma_2(model: Any, config: Any) -> str | None:
    """What is a choice in its configuration and none in llama.cpp's graph."""
    if "sliding_attention" not in config.layer_types:
        return "a Gemma 2 without sliding windows"
    if not (config.final_logit_softcapping and config.attn_logit_softcapping):
        return "logits or attention scores without a cap"
    tied = model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    return None if tied else "a head of its own"


def rope_parameters(config: Any) -> dict[str, dict[str, Any]]:
    """By kind of layer; a family with one for all has it under the empty name."""
    found = config.rope_parameters
    return {"": found} if "rope_type" in found else {kind: one for kind, one in found.items() if one is not None}
