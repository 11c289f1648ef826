"""A network's weights by llama.cpp's names and in its order of rows, with a set's neurons alone.

Letters as in ``coreinfer.decode``; W is a layer's width in the file: the neurons kept, and zero neurons.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from coreinfer.decode.network import Layer, Network, Norm, plain
from coreinfer.gguf.layouts import Layout
from coreinfer.neurons import NeuronSet


@dataclass(frozen=True)
class Part:
    """One tensor of the file: ``make`` gives it, in whatever dtype the model has it. ``shape`` is torch's."""

    name: str
    shape: tuple[int, ...]
    make: Callable[[], Tensor]


def widths_of(neurons: NeuronSet, layout: Layout, multiple: int) -> list[int]:
    """Each layer's W: a multiple of ``multiple``, at least one neuron (``deci`` leaves out a layer that has none)."""
    rounded = [max(1, -(-kept // multiple)) * multiple for kept in neurons.per_layer]
    return rounded if layout.widths else [max(rounded)] * len(rounded)


def parts(
    network: Network, layout: Layout, neurons: NeuronSet, widths: list[int], factors: Tensor | None
) -> Iterator[Part]:
    """All tensors of the file. ``factors`` (D / 2,): what llama.cpp divides each frequency of rope by, or None."""
    yield _whole("token_embd.weight", network.embedding)
    if (head := plain(network.head)).data_ptr() != network.embedding.data_ptr():
        yield _whole("output.weight", head)
    yield _whole("output_norm.weight", network.final.weight)
    if factors is not None:
        yield _whole("rope_freqs.weight", factors)
    for number, (layer, ids, width) in enumerate(zip(network.layers, neurons.layers, widths, strict=True)):
        yield from _attention(f"blk.{number}", network, layout, layer)
        yield from _mlp(f"blk.{number}", layer, torch.from_numpy(ids).long(), width)


def _whole(name: str, tensor: Tensor) -> Part:
    return Part(name, tuple(tensor.shape), lambda: tensor)


def _norm(name: str, norm: Norm | None) -> Iterator[Part]:
    if norm is not None:
        yield _whole(f"{name}.weight", norm.weight)


def _attention(at: str, network: Network, layout: Layout, layer: Layer) -> Iterator[Part]:
    yield from _norm(f"{at}.attn_norm", layer.before_attention)
    sizes = [network.heads * network.head_dim, *[network.kv_heads * network.head_dim] * 2]
    biases = [None] * 3 if layer.qkv_bias is None else torch.split(layer.qkv_bias, sizes)
    for name, rows, bias in zip("qkv", torch.split(plain(layer.qkv), sizes), biases, strict=True):
        turned = layout.neighbours and name != "v"
        for kind, tensor in (("weight", rows), ("bias", bias)):
            if tensor is not None:
                yield _turned(f"{at}.attn_{name}.{kind}", tensor, network.head_dim if turned else 0)
    yield from _norm(f"{at}.attn_q_norm", layer.q_norm)
    yield from _norm(f"{at}.attn_k_norm", layer.k_norm)
    yield _whole(f"{at}.attn_output.weight", plain(layer.out))
    if layer.out_bias is not None:
        yield _whole(f"{at}.attn_output.bias", layer.out_bias)
    yield from _norm(f"{at}.post_attention_norm", layer.after_attention)


def _turned(name: str, tensor: Tensor, head_dim: int) -> Part:
    """Rows of queries or keys; where there is a ``head_dim``, with the halves that rope turns together interleaved."""
    return Part(name, tuple(tensor.shape), lambda: interleaved(tensor, head_dim) if head_dim else tensor)


def interleaved(rows: Tensor, head_dim: int) -> Tensor:
    """(n * D, …) with row i + D / 2 of each head moved behind row i: what rope turns together become neighbours."""
    heads = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return heads.transpose(1, 2).reshape(rows.shape)


def _mlp(at: str, layer: Layer, ids: Tensor, width: int) -> Iterator[Part]:
    yield from _norm(f"{at}.ffn_norm", layer.before_mlp)
    *inputs, down = map(plain, layer.rows)
    hidden = down.shape[1]
    for number, (name, rows) in enumerate(zip(("ffn_gate", "ffn_up"), inputs, strict=True)):
        yield Part(f"{at}.{name}.weight", (width, hidden), _picked(rows, ids, width, 0))
        if layer.in_bias is not None:
            yield Part(f"{at}.{name}.bias", (width,), _picked(layer.in_bias[number], ids, width, 0))
    yield Part(f"{at}.ffn_down.weight", (hidden, width), _picked(down.T, ids, width, 1))
    if layer.down_bias is not None:
        yield _whole(f"{at}.ffn_down.bias", layer.down_bias)
    yield from _norm(f"{at}.post_ffw_norm", layer.after_mlp)


def _picked(weight: Tensor, ids: Tensor, width: int, axis: int) -> Callable[[], Tensor]:
    """Those of ``ids`` along an axis of F neurons, and zeros behind them up to W."""

    def make() -> Tensor:
        found = weight if len(ids) == weight.shape[axis] else weight.index_select(axis, ids.to(weight.device))
        missing = width - len(ids)
        return pad(found, (0, 0) * (weight.ndim - 1 - axis) + (0, missing)) if missing else found

    return make
