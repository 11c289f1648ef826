"""What a GGUF file says besides weights: the model's numbers, and its tokenizer where llama.cpp knows the kind."""

import json
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.decode.network import Network
from coreinfer.gguf.layouts import Layout, rope_parameters
from coreinfer.models import decoder_of

# llama.cpp's names of ways to split text before byte-level BPE, by the expression that a tokenizer.json holds.
_TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_HEAD = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
SPLITS = {_HEAD + r"\p{N}{1,3}" + _TAIL: "llama-bpe", _HEAD + r"\p{N}" + _TAIL: "qwen2", "": "gpt-2"}
NORMAL, CONTROL, USER, UNUSED = 1, 3, 4, 5  # llama.cpp's types of tokens


def rope_factors(model: PreTrainedModel, layout: Layout) -> Tensor | None:
    """(D / 2,): what ``deci`` divides the plain frequencies by, whatever kind of positions made them; None for 1."""
    if not layout.neighbours:
        return None
    rope: Any = decoder_of(model).rotary_emb
    frequencies = rope.inv_freq.float().cpu()
    [found] = rope_parameters(model.config.get_text_config()).values()
    places = torch.arange(len(frequencies), dtype=torch.float64) / len(frequencies)
    factors = (float(found["rope_theta"]) ** -places / frequencies).float()
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors


def describe(writer: Any, model: PreTrainedModel, network: Network, layout: Layout, widths: list[int]) -> None:
    """The numbers of the model, into a ``gguf.GGUFWriter``."""
    config: Any = model.config.get_text_config()
    layers, several = len(network.layers), layout.widths
    writer.add_block_count(layers)
    writer.add_context_length(network.context)
    writer.add_embedding_length(network.hidden)
    writer.add_feed_forward_length(widths if several else widths[0])
    writer.add_head_count([network.heads] * layers if several else network.heads)
    writer.add_head_count_kv([network.kv_heads] * layers if several else network.kv_heads)
    writer.add_key_length(network.head_dim)
    writer.add_value_length(network.head_dim)
    writer.add_layer_norm_rms_eps(network.layers[0].before_attention.eps)
    writer.add_rope_dimension_count(network.head_dim)
    writer.add_vocab_size(len(network.embedding))
    _describe_ropes(writer, rope_parameters(config), layout)
    windows = [layer.window for layer in network.layers]
    if layout.windows and any(windows):
        writer.add_sliding_window(max(window for window in windows if window))
        writer.add_sliding_window_pattern([window is not None for window in windows])
    if network.softcap:
        writer.add_final_logit_softcapping(network.softcap)
    if network.attention_softcap:
        writer.add_attn_logit_softcapping(network.attention_softcap)


def _describe_ropes(writer: Any, ropes: dict[str, dict[str, Any]], layout: Layout) -> None:
    main = ropes.get("", ropes.get("full_attention")) or next(iter(ropes.values()))
    writer.add_rope_freq_base(float(main["rope_theta"]))
    if "sliding_attention" in ropes:
        writer.add_rope_freq_base_swa(float(ropes["sliding_attention"]["rope_theta"]))
    if main["rope_type"] == "linear" and not layout.neighbours:  # deci's factors say it
        writer.add_rope_scaling_type(_linear())
        writer.add_rope_scaling_factor(float(main["factor"]))


def _linear() -> Any:
    from gguf import RopeScalingType

    return RopeScalingType.LINEAR


def describe_tokens(writer: Any, tokenizer: Any, rows: int) -> None:
    """The tokenizer, if it is byte-level BPE (GPT-2, Llama 3, Qwen); otherwise only that there are ``rows`` tokens.

    A file without a tokenizer takes and gives token ids.
    """
    whole = None if tokenizer is None else _byte_level(tokenizer)
    writer.add_tokenizer_model("none" if whole is None else "gpt2")
    if whole is None:
        return
    words, types = _words(tokenizer, rows)
    writer.add_tokenizer_pre(split_name(whole["pre_tokenizer"]))
    writer.add_token_list(words)
    writer.add_token_types(types)
    writer.add_token_merges([x if isinstance(x, str) else " ".join(x) for x in whole["model"]["merges"]])
    ids = tokenizer("a")["input_ids"]
    for name in ("bos", "eos", "pad"):
        token = getattr(tokenizer, f"{name}_token_id")
        if isinstance(token, int) and token < rows:
            getattr(writer, f"add_{name}_token_id")(token)
    writer.add_add_bos_token(ids[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(ids[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _byte_level(tokenizer: Any) -> dict[str, Any] | None:
    """A fast tokenizer's own JSON, if it is byte-level BPE."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole: dict[str, Any] = json.loads(backend.to_str())
    steps = _steps(whole["pre_tokenizer"])
    return whole if whole["model"]["type"] == "BPE" and any(s["type"] == "ByteLevel" for s in steps) else None


def _steps(split: dict[str, Any] | None) -> list[dict[str, Any]]:
    if split is None:
        return []
    return list(split["pretokenizers"]) if split["type"] == "Sequence" else [split]


def split_name(split: dict[str, Any]) -> str:
    """llama.cpp's name of a way to split text; ``default`` where it has none that we know."""
    steps = _steps(split)
    expressions = [str(step["pattern"].get("Regex")) for step in steps if step["type"] == "Split"]
    bytes_ = next(step for step in steps if step["type"] == "ByteLevel")
    if len(steps) != len(expressions) + 1 or bytes_["add_prefix_space"] or bytes_["use_regex"] == bool(expressions):
        return "default"
    return SPLITS.get("".join(expressions), "default")


def _words(tokenizer: Any, rows: int) -> tuple[list[str], list[int]]:
    """Tokens by id and their types, as many as the embedding has rows; what nobody uses has a name of its own."""
    words, types = [f"[PAD{number}]" for number in range(rows)], [UNUSED] * rows
    added = tokenizer.added_tokens_decoder
    for word, number in tokenizer.get_vocab().items():
        if number < rows:
            words[number] = word
            types[number] = NORMAL if number not in added else CONTROL if added[number].special else USER
    return words, types
