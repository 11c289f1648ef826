"""A step on a CPU by compiled loops: what a call costs beyond its work is a microsecond, so small models gain most.

Everything between weights lies in one array a purpose, made once. Shapes as ``reference`` has them.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.decode import compiled, compiled_int
from coreinfer.decode.network import Layer, Network, Norm, Weight, gathered
from coreinfer.decode.picking import pick
from coreinfer.decode.state import State
from coreinfer.neurons import NeuronSet
from coreinfer.quantised.packed import Packed

SPLIT = 1 << 17  # multiplications below which one thread is done before others have begun
EMPTY = np.empty(0, np.float32)
TURN = Lock()  # one of Numba's ways to share work among threads serves one caller at a time

Floats = NDArray[np.float32]
Call = Callable[[Floats, Floats], None]  # from x to y


def bits(weight: Tensor) -> NDArray[Any]:
    """The tensor's memory: float32, or bfloat16 as uint16."""
    held = weight if weight.dtype is torch.float32 else weight.to(torch.bfloat16).view(torch.uint16)
    return held.numpy()


def product(weight: Weight, bias: Tensor | None, threads: int) -> Call:
    """y = weight (m, n) @ x + bias, on several threads where that is worth it."""
    if isinstance(weight, Packed):
        return quantised_product(weight, bias, threads, across=False)
    w = bits(weight.contiguous())
    b = np.zeros(len(w), np.float32) if bias is None else bias.float().numpy()
    if threads == 1 or w.size < SPLIT:
        return lambda x, y: compiled.product(w, x, b, y)

    def shared(x: Floats, y: Floats) -> None:
        with TURN:
            compiled.shared_product(w, x, b, y, threads)

    return shared


def quantised_product(weight: Packed, bias: Tensor | None, threads: int, across: bool) -> Call:
    """The same; ``across``: y = x @ weight (m, n) + bias."""
    held = weight.contiguous()
    w, s = (x.view(torch.uint16).numpy() if x.element_size() == 2 else x.numpy() for x in (held.data, held.scales))
    b = np.zeros(weight.shape[int(across)], np.float32) if bias is None else bias.float().numpy()
    if threads == 1 or weight.numel() < SPLIT:
        return lambda x, y: compiled_int.product(w, s, x, b, y, across)

    def shared(x: Floats, y: Floats) -> None:
        with TURN:
            compiled_int.shared_product(w, s, x, b, y, across, threads)

    return shared


def columns(weight: Weight, bias: Tensor | None, threads: int) -> Call:
    """y = activations times the down columns, as ``gathered`` has them."""
    if isinstance(weight, Packed):
        return quantised_product(weight, bias, threads, across=True)
    return product(weight, bias, threads)


def norm(made: Norm | None) -> Call:
    """y = x normed; a copy where there is no norm."""
    if made is None:
        return lambda x, y: compiled.normed(x, EMPTY, EMPTY, 0.0, y)
    weight, shift = made.weight.numpy(), EMPTY if made.bias is None else made.bias.numpy()
    return partial(_normed, weight, shift, made.eps)


def _normed(weight: Floats, shift: Floats, eps: float, x: Floats, y: Floats) -> None:
    compiled.normed(x, weight, shift, eps, y)


@dataclass(frozen=True)
class SwiftLayer:
    """What a step calls of a layer, and its neurons' projections (P - 1, k) and activations (k,)."""

    before: Call
    qkv: Call
    out: Call
    after: Call
    before_mlp: Call
    inputs: tuple[Call, ...]
    down: Call
    after_mlp: Call
    projected: Floats
    active: Floats


def swift_layer(layer: Layer, ids: Tensor, threads: int) -> SwiftLayer:
    """With the neurons ``ids`` (k,) gathered."""
    rows, down, biases = gathered(layer, ids)
    return SwiftLayer(
        norm(layer.before_attention), product(layer.qkv, layer.qkv_bias, threads),
        product(layer.out, layer.out_bias, threads), norm(layer.after_attention), norm(layer.before_mlp),
        tuple(product(w, bias, threads) for w, bias in zip(rows, biases, strict=True)),
        columns(down, layer.down_bias, threads), norm(layer.after_mlp),
        np.empty((len(rows), len(ids)), np.float32), np.empty(len(ids), np.float32),
    )  # fmt: skip


class SwiftStep:
    """One token on the neurons of a set; ``run`` as ``steps.Step``'s."""

    def __init__(self, network: Network, state: State, neurons: NeuronSet) -> None:
        net, threads = network, torch.get_num_threads()
        self.network, self.state, self.threads = network, state, threads
        ids = (torch.from_numpy(x.astype("int64")) for x in neurons.layers)
        self.layers = [swift_layer(x, some, threads) for x, some in zip(net.layers, ids, strict=True)]
        self.final, self.head = norm(net.final), product(net.head, net.head_bias, threads)
        self.ropes = [table.numpy() for table in net.ropes]
        self.norms = [[EMPTY if n is None else n.weight.numpy() for n in (x.q_norm, x.k_norm)] for x in net.layers]
        self.act = compiled.ACTS.index(net.act)
        self.keys, self.values = bits(state.keys), bits(state.values)
        self.x, self.y, self.z = (np.empty(net.hidden, np.float32) for _ in range(3))
        self.qkv = np.empty((net.heads + 2 * net.kv_heads, net.head_dim), np.float32)
        self.done = np.empty((net.heads, net.head_dim), np.float32)
        self.scores = np.empty((net.heads, state.context), np.float32)
        self.logits = state.logits.numpy()

    def run(self) -> None:
        net, s, x, y, z = self.network, self.state, self.x, self.y, self.z
        token, at = int(s.token), int(s.position)
        x[:] = net.embedding[token].float().numpy()
        x *= np.float32(net.embedding_scale)
        if net.positions is not None:
            x += net.positions[at].float().numpy()
        for number, layer in enumerate(self.layers):
            layer.before(x, y)
            layer.qkv(y, self.qkv.reshape(-1))
            self._attend(number, at)
            layer.out(self.done.reshape(-1), y)
            layer.after(y, z)
            x += z
            layer.before_mlp(x, y)
            for part, out in zip(layer.inputs, layer.projected, strict=True):
                part(y, out)
            compiled.activate(layer.projected, self.act, layer.active)
            layer.down(layer.active, y)
            layer.after_mlp(y, z)
            x += z
        self.final(x, y)
        self.head(y, self.logits)
        if net.softcap is not None:
            np.tanh(self.logits / net.softcap, out=self.logits)
            self.logits *= np.float32(net.softcap)
        pick(s)

    def _attend(self, number: int, at: int) -> None:
        """From the projections to what attention makes of them, ``done``."""
        net, layer, (q_norm, k_norm) = self.network, self.network.layers[number], self.norms[number]
        q, k, v = np.split(self.qkv, [net.heads, net.heads + net.kv_heads])
        if layer.rope is not None:
            eps, table = layer.q_norm.eps if layer.q_norm else 0.0, self.ropes[layer.rope][at]
            compiled.turn(q, q_norm, eps, table, net.turned)
            compiled.turn(k, k_norm, eps, table, net.turned)
        compiled.store(k, self.keys[number], at)
        compiled.store(v, self.values[number], at)
        since = 0 if layer.window is None else max(0, at + 1 - layer.window)
        many = self.threads > 1 and (at - since) * q.size > SPLIT
        with TURN if many else nullcontext():
            (compiled.shared_attend if many else compiled.attend)(
                q, self.keys[number], self.values[number], since, at, net.scale, net.attention_softcap or 0.0,
                self.scores, self.done,
            )  # fmt: skip
