"""What a model's parts take, from its configuration alone: no weight is read."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from coreinfer.decode.families import reach
from coreinfer.mlp import FUSED, Mlp
from coreinfer.models import decoder_of, structure


@dataclass(frozen=True)
class Facts:
    """Bytes, unless said otherwise; a model as it is loaded.

    Attributes:
        embeddings: of tokens and positions, and the head, if it is not the same.
        attention: all projections of all layers. ``rest``: norms, biases, rotary tables.
        layers, width, parts, hidden: L, F, P, H. ``size``: of a weight.
        fused: whether one module holds gate and up together.
        position: what one position of the cache takes in all layers.
        token: what a prompt's token takes while it goes through a layer, at most; ``pair``: what two tokens take where
            attention keeps a score of each pair.
        once: what takes the most of what is there for a moment only: rotary tables being made, norms of all columns.
        logits: what the next token's scores take. ``context``: the most positions, a number.
    """

    embeddings: int
    attention: int
    rest: int
    layers: int
    width: int
    parts: int
    hidden: int
    size: int
    fused: bool
    position: int
    token: int
    pair: int
    once: int
    logits: int
    context: int

    @property
    def neuron(self) -> int:
        """Bytes of one neuron: its rows and its column."""
        return self.parts * self.hidden * self.size

    @property
    def layer(self) -> int:
        """Bytes of one layer's neurons."""
        return self.width * self.neuron

    @property
    def neurons(self) -> int:
        """How many there are in all layers."""
        return self.layers * self.width


def facts_of(model: PreTrainedModel, dtype: torch.dtype) -> Facts:
    """Of a model whose weights may be on the meta device."""
    mlps, config = structure(model), model.config.get_text_config()
    ends = {id(p): p for p in _ends(model)}
    mine = {id(mlp.modules[name].weight) for mlp in mlps for name in mlp.names}
    others = [p for p in model.parameters() if id(p) not in mine and id(p) not in ends]
    first: Any = next(m for m in decoder_of(model).modules() if hasattr(m, "head_dim") and hasattr(m, "scaling"))
    heads, head = int(config.num_attention_heads), int(first.head_dim)
    kv = int(getattr(config, "num_key_value_heads", None) or heads)
    width, hidden, size, parts = mlps[0].width, int(config.hidden_size), dtype.itemsize, _parts(mlps[0])
    positions = reach(model)
    table = positions * head * 4 * 2 if config.model_type != "opt" else 0
    kinds = len({*(getattr(config, "layer_types", None) or ())}) or 1
    small = sum(p.numel() for p in others if p.ndim < 2)
    return Facts(
        embeddings=size * sum(p.numel() for p in ends.values()),
        attention=size * sum(p.numel() for p in others if p.ndim > 1), rest=(size + 4) * small + kinds * table,
        layers=len(mlps), width=width, parts=parts, hidden=hidden, size=size, fused=FUSED in mlps[0].inputs,
        position=len(mlps) * 2 * kv * head * size,
        token=_token(width, hidden, (heads + 2 * kv) * head, size), pair=_pair(config, heads, size),
        once=max(3 * table, width * hidden * 4), logits=int(config.vocab_size) * (size + 12), context=positions,
    )  # fmt: skip


def _token(width: int, hidden: int, projected: int, size: int) -> int:
    """The residual stream, and what attention or, more often, the MLP and the statistic of its activations take."""
    mlp = width * (4 * size + 10)  # the activations, a copy, their order as int64 (``statistic.core_tokens``)
    attention = (hidden + projected) * (6 * size + 12)  # norms in float32; projections, turned and repeated
    return 3 * hidden * size + max(mlp, attention)


def _pair(config: Any, heads: int, size: int) -> int:
    """Scores of each head and their softmax in float32; or the mask alone, where the attention needs one."""
    if config._attn_implementation == "eager":
        return heads * (size + 8)
    return size + 5 if getattr(config, "sliding_window", None) else 0


def _parts(mlp: Mlp) -> int:
    """P: gate, up and down, or two where there is no gate."""
    return 3 if mlp.inputs == (FUSED,) else len(mlp.names)


def _ends(model: PreTrainedModel) -> list[nn.Parameter]:
    """The weights before the first layer and behind the last; a tied one may be there twice."""
    decoder: Any = decoder_of(model)
    some: Any = model
    modules = [some.get_input_embeddings(), some.get_output_embeddings(), getattr(decoder, "embed_positions", None)]
    return [module.weight for module in modules if module is not None]
