"""One step in plain torch, each line as the formula has it: the slow truth that fast steps must equal."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, relu, silu

from coreinfer.decode.network import Layer, Network, Norm, Weight
from coreinfer.quantised.packed import Packed

ACTS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": silu,
    "relu": relu,
    "gelu": gelu,
    "gelu_pytorch_tanh": lambda x: gelu(x, approximate="tanh"),
}


def normed(x: Tensor, norm: Norm) -> Tensor:
    """RMS or layer norm over the last axis, in float32."""
    y = x.float()
    if norm.center:
        y = y - y.mean(-1, keepdim=True)
    y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + norm.eps) * norm.weight
    return y if norm.bias is None else y + norm.bias


def turn(x: Tensor, table: Tensor, turned: int) -> Tensor:
    """Rotary positions of heads (n, head_dim) at one place: ``table`` (2, head_dim), its first ``turned`` turn."""
    half = turned // 2
    swapped = torch.cat([-x[:, half:turned], x[:, :half], x[:, turned:]], -1)
    return x * table[0] + swapped * table[1]


def attend(q: Tensor, keys: Tensor, values: Tensor, scale: float, softcap: float | None) -> Tensor:
    """Queries (heads, D), keys and values (T, kv_heads, D) -> (heads, D), in float32."""
    groups = q.shape[0] // keys.shape[1]
    scores = torch.einsum("gnd,tgd->gnt", q.view(-1, groups, q.shape[1]), keys.float()) * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    return torch.einsum("gnt,tgd->gnd", scores.softmax(-1), values.float()).reshape(q.shape)


def dense(weight: Weight) -> Tensor:
    """What a quantised weight stands for, float32."""
    return weight.dequantised() if isinstance(weight, Packed) else weight


def projected(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x (n,) rounded to the weights' dtype, times weight (m, n); float32 (m,)."""
    y = linear(x.to(weight.dtype), weight).float()
    return y if bias is None else y + bias


def mlp(x: Tensor, layer: Layer, kept: Tensor, act: str) -> Tensor:
    """x (H,) through the neurons ``kept`` (k,); float32 (H,)."""
    *inputs, down = (dense(part[kept]) for part in layer.rows)
    rows = [projected(x, part, None) for part in inputs]
    if layer.in_bias is not None:
        rows = [row + bias[kept] for row, bias in zip(rows, layer.in_bias, strict=True)]
    a = ACTS[act](rows[0]) * rows[1] if len(rows) == 2 else ACTS[act](rows[0])
    return projected(a, down.T, layer.down_bias)


def heads_of(x: Tensor, count: int, norm: Norm | None) -> Tensor:
    rows = x.view(count, -1)
    return rows if norm is None else normed(rows, norm)


def step(net: Network, token: int, position: int, keys: Tensor, values: Tensor, kept: Sequence[Tensor]) -> Tensor:
    """Logits, float32 (V,), of the token at ``position``; its keys and values go into the caches.

    ``keys``, ``values``: (L, C, kv_heads, head_dim); ``kept``: each layer's neurons, int64 (k,).
    """
    x = net.embedding[token].float() * net.embedding_scale
    if net.positions is not None:
        x = x + net.positions[position].float()
    for number, (layer, mine) in enumerate(zip(net.layers, kept, strict=True)):
        done = _attention(net, layer, x, position, keys[number], values[number])
        x = x + (done if layer.after_attention is None else normed(done, layer.after_attention))
        done = mlp(normed(x, layer.before_mlp), layer, mine, net.act)
        x = x + (done if layer.after_mlp is None else normed(done, layer.after_mlp))
    logits = projected(normed(x, net.final), dense(net.head), net.head_bias)
    return logits if net.softcap is None else torch.tanh(logits / net.softcap) * net.softcap


def _attention(net: Network, layer: Layer, x: Tensor, position: int, keys: Tensor, values: Tensor) -> Tensor:
    """What attention adds to the residual stream x (H,), before any norm of it."""
    count, side = net.heads * net.head_dim, net.kv_heads * net.head_dim
    qkv = projected(normed(x, layer.before_attention), dense(layer.qkv), layer.qkv_bias)
    q, k, v = torch.split(qkv, [count, side, side])
    q, k = heads_of(q, net.heads, layer.q_norm), heads_of(k, net.kv_heads, layer.k_norm)
    if layer.rope is not None:
        q, k = (turn(y, net.ropes[layer.rope][position], net.turned) for y in (q, k))
    keys[position], values[position] = k.to(keys.dtype), v.view(net.kv_heads, -1).to(values.dtype)
    since = 0 if layer.window is None else max(0, position + 1 - layer.window)
    seen = slice(since, position + 1)
    done = attend(q, keys[seen], values[seen], net.scale, net.attention_softcap)
    return projected(done.flatten(), dense(layer.out), layer.out_bias)
