"""A Hugging Face model -> ``Network``. The model goes on working: its weights become views of the new layout.

So hardly a weight lies in memory twice (Phi-3's fused gate and up do), and prefill runs Transformers' own forward on
what decoding reads. Known are Llama, Mistral, Qwen2, Qwen3, Phi-3, Gemma 2 and 3 and OPT; ``unsupported`` names what
is in the way of any other.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, get_args

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from coreinfer.decode.network import Act, Layer, Network, Norm
from coreinfer.decode.weights import LINEAR, in_bias, joined_bias, neurons_of, packed, weight_of
from coreinfer.mlp import full
from coreinfer.models import context_length, decoder_of
from coreinfer.quantised.linear import QuantisedLinear

LLAMAS = ("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma2", "gemma3_text")
STATIC_ROPES = ("default", "linear", "llama3", "proportional")  # the others change as the text grows
PIECE = 1 << 16  # positions that rope tables, and so caches, hold at most


def unsupported(model: PreTrainedModel) -> str | None:
    """Why this model cannot be decoded by the project's own steps, in words; None if it can."""
    config: Any = model.config.get_text_config()
    if config.model_type not in (*LLAMAS, "opt"):
        return f"the architecture {config.model_type!r}"
    if config.model_type == "opt":
        if not config.do_layer_norm_before or config.word_embed_proj_dim != config.hidden_size:
            return "OPT with norms after its layers"
        if config.activation_function not in get_args(Act):
            return f"the activation {config.activation_function!r}"
        return _odd_norm(model) or _odd_module(model)
    act = getattr(config, "hidden_activation", None) or config.hidden_act
    if act not in get_args(Act):
        return f"the activation {act!r}"
    odd = [kind for kind in _rope_kinds(config) if kind not in STATIC_ROPES]
    if odd:
        return f"positions of the kind {odd[0]!r}"
    return _odd_module(model)


def reach(model: PreTrainedModel) -> int:
    """Positions that the steps can decode."""
    return min(context_length(model), PIECE)


def _odd_norm(model: Any) -> str | None:
    """OPT's layer norms may have no weights, and the last one may be missing."""
    decoder: Any = decoder_of(model)
    norms = [
        decoder.final_layer_norm,
        *(n for x in decoder.layers for n in (x.self_attn_layer_norm, x.final_layer_norm)),
    ]
    return "OPT with other norms" if any(n is None or n.weight is None or n.bias is None for n in norms) else None


def _odd_module(model: Any) -> str | None:
    """Linear modules that are neither plain nor ours hold weights that cannot be laid out anew; hooks would not run."""
    decoder: Any = decoder_of(model)
    kinds = set[int | None]()
    for layer in decoder.layers:
        for name, module in layer.named_modules():
            if name.endswith("_proj") or name in ("fc1", "fc2"):
                found = full(module)
                if type(found) not in LINEAR:
                    return f"{type(module).__name__} modules"
                kinds.add(found.packed.bits if isinstance(found, QuantisedLinear) else None)
    if len(kinds) > 1:
        return "layers that are quantised in part, or differently"
    if type(model.get_output_embeddings()) not in LINEAR:
        return f"a head of the type {type(model.get_output_embeddings()).__name__}"
    return "a model with forward hooks" if any(_hooked(module) for module in decoder.layers.modules()) else None


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _rope_kinds(config: Any) -> list[str]:
    found = config.rope_parameters
    some = [found] if "rope_type" in found else [x for x in found.values() if x is not None]
    return [str(x["rope_type"]) for x in some]


@torch.no_grad()
def read_network(model: PreTrainedModel, bundle: bool = True) -> Network:
    """Lay a supported model's weights out anew, in place; without ``bundle`` those of attention alone."""
    config: Any = model.config.get_text_config()
    return (_opt if config.model_type == "opt" else _llama)(model, config, bundle)


def _full(module: nn.Module) -> Any:
    """A module's children, the full ones also while a slim context has gathered ones in their place."""
    return SimpleNamespace(**{name: full(child) for name, child in module.named_children()})


def _rms(module: Any) -> Norm:
    """Gemma's modules add 1 to their weight."""
    gemma = type(module).__name__.startswith("Gemma")
    eps = module.eps if gemma else module.variance_epsilon
    return Norm(module.weight.detach().float() + (1.0 if gemma else 0.0), None, float(eps))


def _centered(module: Any) -> Norm:
    return Norm(module.weight.detach().float(), module.bias.detach().float(), float(module.eps), center=True)


def _llama(model: Any, config: Any, bundle: bool) -> Network:
    decoder = decoder_of(model)
    types = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    tables, context = _ropes(decoder, config, types), reach(model)
    named = sorted(set(types)) if len(tables) > 1 else types[:1]
    layers = tuple(
        _llama_layer(layer, _window(config, kind), named.index(kind) if len(tables) > 1 else 0, bundle)
        for layer, kind in zip(decoder.layers, types, strict=True)  # type: ignore[arg-type]
    )
    first: Any = decoder.layers[0].self_attn  # type: ignore[index, union-attr]
    embedding: Any = model.get_input_embeddings()
    head = model.get_output_embeddings()
    return Network(
        embedding=embedding.weight.detach(), embedding_scale=_embedding_scale(embedding), positions=None,
        ropes=tuple(table for table, _ in tables), turned=tables[0][1], layers=layers, final=_rms(decoder.norm),
        head=weight_of(head), head_bias=joined_bias([head]), heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads, head_dim=first.head_dim, scale=float(first.scaling),
        act=getattr(config, "hidden_activation", None) or config.hidden_act, context=context,
        softcap=getattr(config, "final_logit_softcapping", None),
        attention_softcap=getattr(config, "attn_logit_softcapping", None),
    )  # fmt: skip


def _embedding_scale(embedding: Any) -> float:
    """Gemma's, as rounded as its weights are."""
    scale = getattr(embedding, "embed_scale", None)
    return 1.0 if scale is None else float(torch.as_tensor(scale).to(embedding.weight.dtype))


def _window(config: Any, kind: str) -> int | None:
    """Mistral and Phi-3 have one for all layers; others name the layers that have one."""
    if kind == "sliding_attention" or config.model_type in ("mistral", "phi3"):
        return getattr(config, "sliding_window", None)
    return None


def _ropes(decoder: Any, config: Any, types: Sequence[str]) -> list[tuple[Tensor, int]]:
    """(table, dimensions turned) of each kind of layer that has its own, in the order of their names; else of all."""
    weight = decoder.embed_tokens.weight
    places = torch.arange(min(config.max_position_embeddings, PIECE), device=weight.device)[None]
    like = torch.zeros(1, device=weight.device)  # float32: tables are as exact as can be
    several = "rope_type" not in config.rope_parameters
    kinds = [(kind,) for kind in sorted(set(types))] if several else [()]
    head = int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)
    found = (decoder.rotary_emb(like, places, *kind) for kind in kinds)
    return [_table(cos, sin, head) for cos, sin in found]


def _table(cos: Tensor, sin: Tensor, head_dim: int) -> tuple[Tensor, int]:
    turned = cos.shape[-1]
    table = torch.zeros(cos.shape[1], 2, head_dim, device=cos.device)
    table[:, 0] = 1
    table[:, 0, :turned], table[:, 1, :turned] = cos[0].float(), sin[0].float()
    return table, turned


def _llama_layer(layer: Any, window: int | None, rope: int, bundle: bool) -> Layer:
    attention, mlp = layer.self_attn, _full(layer.mlp)
    inputs = [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]
    fused = hasattr(attention, "qkv_proj")
    qkv = [attention.qkv_proj] if fused else [attention.q_proj, attention.k_proj, attention.v_proj]
    own = hasattr(layer, "pre_feedforward_layernorm")  # Gemma: norms before and after
    per_head = (getattr(attention, name, None) for name in ("q_norm", "k_norm"))
    q_norm, k_norm = (None if norm is None else _rms(norm) for norm in per_head)
    rows, neurons = neurons_of(inputs, mlp.down_proj, bundle)
    return Layer(
        qkv=packed(qkv), qkv_bias=joined_bias(qkv), out=weight_of(attention.o_proj),
        out_bias=joined_bias([attention.o_proj]), rows=rows, neurons=neurons,
        in_bias=in_bias(inputs, mlp.down_proj.in_features), down_bias=joined_bias([mlp.down_proj]),
        before_attention=_rms(layer.input_layernorm),
        before_mlp=_rms(layer.pre_feedforward_layernorm if own else layer.post_attention_layernorm),
        after_attention=_rms(layer.post_attention_layernorm) if own else None,
        after_mlp=_rms(layer.post_feedforward_layernorm) if own else None,
        q_norm=q_norm, k_norm=k_norm, window=window, rope=rope,
    )  # fmt: skip


def _opt(model: Any, config: Any, bundle: bool) -> Network:
    decoder: Any = decoder_of(model)
    head = model.get_output_embeddings()
    first = decoder.layers[0].self_attn
    return Network(
        embedding=decoder.embed_tokens.weight.detach(), embedding_scale=1.0,
        positions=decoder.embed_positions.weight.detach()[decoder.embed_positions.offset :], ropes=(), turned=0,
        layers=tuple(_opt_layer(layer, bundle) for layer in decoder.layers), final=_centered(decoder.final_layer_norm),
        head=weight_of(head), head_bias=joined_bias([head]), heads=config.num_attention_heads,
        kv_heads=config.num_attention_heads, head_dim=first.head_dim, scale=float(first.scaling),
        act=config.activation_function, context=reach(model),
    )  # fmt: skip


def _opt_layer(layer: Any, bundle: bool) -> Layer:
    attention = layer.self_attn
    qkv = [attention.q_proj, attention.k_proj, attention.v_proj]
    whole = _full(layer)
    rows, neurons = neurons_of([whole.fc1], whole.fc2, bundle)
    return Layer(
        qkv=packed(qkv), qkv_bias=joined_bias(qkv), out=weight_of(attention.out_proj),
        out_bias=joined_bias([attention.out_proj]), rows=rows, neurons=neurons,
        in_bias=in_bias([whole.fc1], whole.fc2.in_features), down_bias=joined_bias([whole.fc2]),
        before_attention=_centered(layer.self_attn_layer_norm), before_mlp=_centered(layer.final_layer_norm),
    )  # fmt: skip
