"""A dense decoder as one step reads it: facts, and tensors laid out for that."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from coreinfer.quantised.packed import Packed

Weight = Tensor | Packed
Act = Literal["silu", "relu", "gelu", "gelu_pytorch_tanh"]


@dataclass(frozen=True)
class Norm:
    """RMS norm, or with ``center`` a layer norm: weight and bias float32 (H,), Gemma's 1 already added."""

    weight: Tensor
    bias: Tensor | None
    eps: float
    center: bool = False


@dataclass(frozen=True)
class Layer:
    """A decoder layer. Its weights are of one kind: tensors, or quantised.

    Attributes:
        qkv: (A + 2 G, H), and its bias or None.
        out: (H, A), and its bias or None.
        rows: (F, H) each: the neurons' input rows (gate and up, or one), and last their down columns; views of weights.
        neurons: the same as one tensor (F, P, H), each neuron's P parts side by side, so that one read takes it all;
            None where a CPU decodes, whose prefill is fastest on weights as they were.
        in_bias: (P - 1, F) or None. ``down_bias``: (H,) or None.
        before_attention, before_mlp: norms of the residual stream; ``after_attention``, ``after_mlp``: Gemma's, of what
            is added to it.
        q_norm, k_norm: of each head's (head_dim,), or None.
        window: positions that attention reaches back, or None for all.
        rope: which of the network's tables turns queries and keys; None for learned positions.
    """

    qkv: Weight
    qkv_bias: Tensor | None
    out: Weight
    out_bias: Tensor | None
    rows: tuple[Weight, ...]
    neurons: Weight | None
    in_bias: Tensor | None
    down_bias: Tensor | None
    before_attention: Norm
    before_mlp: Norm
    after_attention: Norm | None = None
    after_mlp: Norm | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    window: int | None = None
    rope: int | None = None


def plain(weight: Weight) -> Tensor:
    """A weight that is known not to be quantised."""
    assert isinstance(weight, Tensor)
    return weight


def rows_of(weight: Weight, ids: Tensor) -> Weight:
    """Rows ``ids`` (k,) of a matrix (F, H), as one that lies by itself."""
    return weight[ids]


def columns_of(weight: Tensor, ids: Tensor) -> Tensor:
    """Columns ``ids`` (k,) of a matrix (H, F), as one that lies by itself."""
    return weight[:, ids]


def gathered(
    layer: Layer, ids: Tensor, rows: Callable[[Weight, Tensor], Weight] = rows_of,
    columns: Callable[[Tensor, Tensor], Tensor] = columns_of,
) -> tuple[list[Weight], Weight, list[Tensor | None]]:  # fmt: skip
    """The neurons ``ids`` (k,): their input rows (k, H), down columns (H, k), and the rows' biases (k,) or None each.
    Quantised down columns stay a neuron a row (k, H): their groups lie along them. ``rows``, ``columns``: what copies
    them, as ``rows_of`` and ``columns_of``.

    All of them are not copied: these are then the layer's own weights.
    """
    *inputs, down = layer.rows
    whole = len(ids) == len(down)
    biases = [None] * len(inputs) if layer.in_bias is None else [bias[ids] for bias in layer.in_bias]
    if whole:
        return inputs, down if isinstance(down, Packed) else down.T.contiguous(), biases
    made = [rows(x, ids) for x in inputs]
    return made, rows(down, ids) if isinstance(down, Packed) else columns(down.T, ids), biases


@dataclass(frozen=True)
class Network:
    """All layers and what is around them.

    Attributes:
        embedding: (V, H); a token's row times ``embedding_scale`` begins the residual stream.
        positions: (C, H), added to it, or None.
        ropes: tables of cosines and sines, float32 (C, 2, head_dim), 1 and 0 where a head is not turned.
        turned: how many of a head's dimensions are, from its first.
        head: (V, H), and its bias or None. ``softcap``, ``attention_softcap``: Gemma 2's, or None.
        scale: of attention scores.
    """

    embedding: Tensor
    embedding_scale: float
    positions: Tensor | None
    ropes: tuple[Tensor, ...]
    turned: int
    layers: tuple[Layer, ...]
    final: Norm
    head: Weight
    head_bias: Tensor | None
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    act: Act
    context: int
    softcap: float | None = None
    attention_softcap: float | None = None

    @property
    def hidden(self) -> int:
        return int(self.embedding.shape[1])

    @property
    def width(self) -> int:
        """F."""
        return len(self.layers[0].rows[0])

    def bytes_read(self, kept: list[int], position: int, texts: int = 1, dense: bool = False) -> int:
        """Bytes of weights, their scales and cache that one step reads, at least: the limit is the memory's bandwidth
        over this. ``dense``: as many as if no weight were quantised.
        """
        size = self.embedding.element_size()

        def of(weight: Weight) -> int:
            return size * weight.numel() if dense else weight.nbytes

        fixed = of(self.head) + sum(of(x.qkv) + of(x.out) for x in self.layers)
        rows = sum(k * of(part) // len(part) for k, x in zip(kept, self.layers, strict=True) for part in x.rows)
        seen = sum(min(position, x.window or position) for x in self.layers)
        return fixed + rows + texts * size * (self.hidden + 2 * seen * self.kv_heads * self.head_dim)
