"""A network with a set's neurons as an ONNX graph with a key-value cache; each line as ``decode.reference`` has it.

The interface is the usual one of decoders, so that others' loops run it: ``input_ids`` (B, T), ``attention_mask``
(B, P + T) and each layer's ``past_key_values.N.key`` and ``.value`` (B, kv_heads, P, D), where P may be 0; out come
``logits`` (B, T, V) and ``present.N.key`` and ``.value`` (B, kv_heads, P + T, D). Positions count the mask's ones, so
texts padded on the left run together. Every layer has its own width: none is filled up. Letters as in
``coreinfer.decode``.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coreinfer.decode.network import Layer, Network, Norm, plain
from coreinfer.export.onnx_graph import Graph
from coreinfer.neurons import NeuronSet

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Frame:
    """What all layers share: masks by window (None: no window), and each rope's cosines and sines, (B, 1, T, D / 2)."""

    masks: dict[int | None, str]
    ropes: list[tuple[str, str]]


def graph_of(network: Network, neurons: NeuronSet) -> Graph:
    """The whole graph; its outputs have their names, and ``write`` writes it."""
    g = Graph()
    embedding = g.weight("embedding", tuple(network.embedding.shape), lambda: network.embedding)
    positions = _positions(g)
    x = g.op("Gather", embedding, "input_ids")
    if network.embedding_scale != 1.0:
        x = g.op("Mul", x, g.number(network.embedding_scale))
    if (table := network.positions) is not None:
        x = g.op("Add", x, g.op("Gather", g.weight("positions", tuple(table.shape), lambda: table), positions))
    frame = Frame(
        {w: _mask(g, w) for w in dict.fromkeys(x.window for x in network.layers)}, _ropes(g, network, positions)
    )
    for number, (layer, ids) in enumerate(zip(network.layers, neurons.layers, strict=True)):
        done = _attention(g, network, layer, frame, number, x)
        x = g.op("Add", x, _normed(g, f"layers.{number}.after_attention", done, layer.after_attention))
        done = _mlp(g, network, layer, torch.from_numpy(ids).long(), number, x)
        x = g.op("Add", x, _normed(g, f"layers.{number}.after_mlp", done, layer.after_mlp))
    g.rename(_logits(g, network, embedding, _normed(g, "final", x, network.final)), "logits")
    return g


def write(path: Path, network: Network, g: Graph, version: str) -> None:
    """A network's ``graph_of`` and its weights, float32."""
    helper, proto, layers = g.onnx.helper, g.onnx.TensorProto, range(len(network.layers))

    def cache(name: str, length: str) -> list[Any]:
        shape = ["batch", network.kv_heads, length, network.head_dim]
        return [
            helper.make_tensor_value_info(f"{name}.{at}.{kind}", proto.FLOAT, shape)
            for at in layers
            for kind in ("key", "value")
        ]

    inputs = [
        helper.make_tensor_value_info("input_ids", proto.INT64, ["batch", "sequence"]),
        helper.make_tensor_value_info("attention_mask", proto.INT64, ["batch", "total"]),
        *cache("past_key_values", "past"),
    ]
    shape = ["batch", "sequence", len(network.embedding)]
    logits = helper.make_tensor_value_info("logits", proto.FLOAT, shape)
    g.write(path, inputs, [logits, *cache("present", "total")], ("coreinfer", version))


def _lengths(g: Graph) -> tuple[str, str]:
    """T and P + T, int64 (1,)."""
    return g.op("Shape", "input_ids", start=1, end=2), g.op("Shape", "attention_mask", start=1, end=2)


def _positions(g: Graph) -> str:
    """(B, T): how many ones the mask has before each token; 0 for padding."""
    new, total = _lengths(g)
    seen = g.op("Sub", g.op("CumSum", "attention_mask", g.op("Squeeze", g.whole(1))), g.whole(1))
    return g.op("Slice", g.op("Max", seen, g.whole(0)), g.op("Sub", total, new), total, g.whole(1))


def _mask(g: Graph, window: int | None) -> str:
    """(B, 1, 1, T, P + T): 0 where a token attends, the lowest number where it does not."""
    new, total = _lengths(g)
    end, one, zero = g.op("Squeeze", total), g.op("Squeeze", g.whole(1)), g.op("Squeeze", g.whole(0))
    rows = g.op("Unsqueeze", g.op("Range", g.op("Squeeze", g.op("Sub", total, new)), end, one), g.whole(1))
    columns = g.op("Unsqueeze", g.op("Range", zero, end, one), g.whole(0))
    seen = g.op("LessOrEqual", columns, rows)
    if window is not None:
        seen = g.op("And", seen, g.op("Less", g.op("Sub", rows, columns), g.whole(window)))
    real = g.op("Unsqueeze", g.op("Equal", "attention_mask", g.whole(1)), g.whole(1))
    mask = g.op("Where", g.op("And", seen, real), g.number(0.0), g.number(LOWEST))
    return g.op("Unsqueeze", mask, g.whole(1, 2))


def _ropes(g: Graph, network: Network, positions: str) -> list[tuple[str, str]]:
    """The first half of each table: the second is the same."""
    half, out = network.turned // 2, list[tuple[str, str]]()
    for number, table in enumerate(network.ropes):
        pair = list[str]()
        for at, kind in enumerate(("cos", "sin")):
            name, rows = f"ropes.{number}.{kind}", table[:, at, :half]
            held = g.weight(name, tuple(rows.shape), lambda rows=rows: rows)  # type: ignore[misc]
            pair.append(g.op("Unsqueeze", g.op("Gather", held, positions), g.whole(1)))
        out.append((pair[0], pair[1]))
    return out


def _vector(g: Graph, name: str, values: Tensor) -> str:
    return g.weight(name, tuple(values.shape), lambda: values)


def _normed(g: Graph, name: str, x: str, norm: Norm | None) -> str:
    """RMS or layer norm over the last axis; ``x`` itself where there is none."""
    if norm is None:
        return x
    axis = g.whole(-1)
    if norm.center:
        x = g.op("Sub", x, g.op("ReduceMean", x, axis))
    power = g.op("Add", g.op("ReduceMean", g.op("Mul", x, x), axis), g.number(norm.eps))
    y = g.op("Mul", g.op("Div", x, g.op("Sqrt", power)), _vector(g, f"{name}.weight", norm.weight))
    return y if norm.bias is None else g.op("Add", y, _vector(g, f"{name}.bias", norm.bias))


def _linear(g: Graph, name: str, x: str, rows: Tensor, bias: Tensor | None) -> str:
    """x (…, n) times rows (m, n)."""
    y = g.op("MatMul", x, g.weight(f"{name}.weight", tuple(rows.T.shape), lambda: rows.T))
    return y if bias is None else g.op("Add", y, _vector(g, f"{name}.bias", bias))


def _heads(g: Graph, name: str, x: str, count: int, size: int, norm: Norm | None) -> str:
    """(B, T, count * D) -> (B, count, T, D)."""
    rows = _normed(g, name, g.op("Reshape", x, g.whole(0, 0, count, size)), norm)
    return g.op("Transpose", rows, perm=[0, 2, 1, 3])


def _turned(g: Graph, x: str, rope: tuple[str, str], turned: int, size: int) -> str:
    """Rotary positions of (B, n, T, D), of which the first ``turned`` dimensions turn."""
    half = turned // 2
    sizes = [half, half, *([size - turned] if size > turned else [])]
    a, b, *rest = g.several("Split", len(sizes), x, g.whole(*sizes), axis=-1)
    cos, sin = rope
    first = g.op("Sub", g.op("Mul", a, cos), g.op("Mul", b, sin))
    second = g.op("Add", g.op("Mul", b, cos), g.op("Mul", a, sin))
    return g.op("Concat", first, second, *rest, axis=-1)


def _attention(g: Graph, net: Network, layer: Layer, frame: Frame, number: int, x: str) -> str:
    """What attention adds to the residual stream (B, T, H), before any norm of it."""
    at, size, count, side = f"layers.{number}", net.head_dim, net.heads * net.head_dim, net.kv_heads * net.head_dim
    y = _normed(g, f"{at}.before_attention", x, layer.before_attention)
    qkv = _linear(g, f"{at}.qkv", y, plain(layer.qkv), layer.qkv_bias)
    q, k, v = g.several("Split", 3, qkv, g.whole(count, side, side), axis=-1)
    q = _heads(g, f"{at}.q_norm", q, net.heads, size, layer.q_norm)
    k = _heads(g, f"{at}.k_norm", k, net.kv_heads, size, layer.k_norm)
    v = _heads(g, "", v, net.kv_heads, size, None)
    if layer.rope is not None:
        q, k = (_turned(g, each, frame.ropes[layer.rope], net.turned, size) for each in (q, k))
    k, v = (
        g.rename(g.op("Concat", f"past_key_values.{number}.{name}", new, axis=2), f"present.{number}.{name}")
        for name, new in (("key", k), ("value", v))
    )
    done = _attended(g, net, q, k, v, frame.masks[layer.window])
    return _linear(g, f"{at}.out", done, plain(layer.out), layer.out_bias)


def _attended(g: Graph, net: Network, q: str, k: str, v: str, mask: str) -> str:
    """Queries (B, heads, T, D) of heads in groups that share keys and values -> (B, T, heads * D)."""
    size, groups = net.head_dim, net.heads // net.kv_heads
    q = g.op("Reshape", g.op("Mul", q, g.number(net.scale)), g.whole(0, net.kv_heads, groups, -1, size))
    k, v = (g.op("Unsqueeze", each, g.whole(2)) for each in (k, v))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 2, 4, 3]))
    scores = g.op("Add", _capped(g, scores, net.attention_softcap), mask)
    done = g.op("MatMul", g.op("Softmax", scores, axis=-1), v)  # (B, kv_heads, groups, T, D)
    return g.op("Reshape", g.op("Transpose", done, perm=[0, 3, 1, 2, 4]), g.whole(0, 0, -1))


def _capped(g: Graph, x: str, cap: float | None) -> str:
    if cap is None:
        return x
    return g.op("Mul", g.op("Tanh", g.op("Div", x, g.number(cap))), g.number(cap))


def _act(g: Graph, x: str, act: str) -> str:
    if act == "silu":
        return g.op("Mul", x, g.op("Sigmoid", x))
    if act == "relu":
        return g.op("Relu", x)
    return g.op("Gelu", x, approximate="tanh" if act == "gelu_pytorch_tanh" else "none")


def _mlp(g: Graph, net: Network, layer: Layer, ids: Tensor, number: int, x: str) -> str:
    """What the neurons ``ids`` (k,) add to the residual stream (B, T, H), before any norm of it."""
    at = f"layers.{number}"
    y = _normed(g, f"{at}.before_mlp", x, layer.before_mlp)
    *inputs, down = map(plain, layer.rows)
    rows = list[str]()
    for part, weight in enumerate(inputs):
        name, shape = f"{at}.mlp.{part}", (weight.shape[1], len(ids))
        held = g.weight(f"{name}.weight", shape, lambda weight=weight: weight[ids].T)  # type: ignore[misc]
        row = g.op("MatMul", y, held)
        if layer.in_bias is not None:
            row = g.op("Add", row, _vector(g, f"{name}.bias", layer.in_bias[part][ids]))
        rows.append(row)
    a = _act(g, rows[0], net.act)
    a = g.op("Mul", a, rows[1]) if len(rows) == 2 else a
    done = g.op("MatMul", a, g.weight(f"{at}.down.weight", (len(ids), down.shape[1]), lambda: down[ids]))
    return done if layer.down_bias is None else g.op("Add", done, _vector(g, f"{at}.down.bias", layer.down_bias))


def _logits(g: Graph, net: Network, embedding: str, x: str) -> str:
    head = plain(net.head)
    if head.data_ptr() == net.embedding.data_ptr():  # one matrix in the file; the runtime turns it once
        y = g.op("MatMul", x, g.op("Transpose", embedding, perm=[1, 0]))
        y = y if net.head_bias is None else g.op("Add", y, _vector(g, "head.bias", net.head_bias))
    else:
        y = _linear(g, "head", x, head, net.head_bias)
    return _capped(g, y, net.softcap)
