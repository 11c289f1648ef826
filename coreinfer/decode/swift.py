"""A step on a CPU by compiled loops: what a call costs beyond its work is a microsecond, so small models gain most.

Everything between weights lies in one array a purpose, made once. A step takes one row or several; weights are read
once for all of them, and what a row gives does not depend on which others there are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.decode import compiled, compiled_heads, compiled_int, compiled_int_shared, compiled_shared
from coreinfer.decode.copies import Copies, Memory, bits
from coreinfer.decode.network import Layer, Network, Norm, Weight, gathered
from coreinfer.decode.own import own
from coreinfer.decode.picking import advance, pick
from coreinfer.decode.state import Feed, State
from coreinfer.decode.team import FEW, team
from coreinfer.neurons import NeuronSet
from coreinfer.quantised.packed import Packed

SPLIT = 1 << 17  # multiplications below which one thread is done before others have begun
EMPTY, NONE = np.empty(0, np.float32), np.empty((0, 0), np.float32)

Floats = NDArray[np.float32]
Whole = NDArray[np.int32]
Call = Callable[[Floats, Floats], None]  # from x to y


def product(weight: Weight, bias: Tensor | None, threads: int) -> Call:
    """y (R, m) = x (R, n) @ weight (m, n).T + bias, on several threads where that is worth it."""
    if isinstance(weight, Packed):
        return quantised_product(weight, bias, threads, across=False)
    w = bits(weight.contiguous())
    b = np.zeros(len(w), np.float32) if bias is None else bias.float().numpy()
    if threads == 1 or w.size < SPLIT:
        return lambda x, y: compiled.product(w, x, b, y)
    share = team(threads, compiled_shared.helps).share
    return lambda x, y: share(compiled_shared.shared_product, compiled.product, w, x, b, y)


def quantised_product(weight: Packed, bias: Tensor | None, threads: int, across: bool) -> Call:
    """The same; ``across``: y = x @ weight (m, n) + bias."""
    held = weight.contiguous()
    w, s = (x.view(torch.uint16).numpy() if x.element_size() == 2 else x.numpy() for x in (held.data, held.scales))
    b = np.zeros(weight.shape[int(across)], np.float32) if bias is None else bias.float().numpy()
    if threads == 1 or weight.numel() < SPLIT:
        return lambda x, y: compiled_int.product(w, s, x, b, y, across)
    share = team(threads, compiled_int_shared.helps).share
    return lambda x, y: share(compiled_int_shared.shared_product, compiled_int.product, w, s, x, b, y, across)


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
    """What a step calls of a layer, and its neurons' projections, gate and up, and activations (R, k) each."""

    before: Call
    qkv: Call
    out: Call
    after: Call
    before_mlp: Call
    inputs: tuple[Call, ...]
    down: Call
    after_mlp: Call
    projected: tuple[Floats, ...]
    active: Floats


def swift_layer(layer: Layer, ids: Tensor, copies: Copies, threads: int, most: int) -> SwiftLayer:
    """With the neurons ``ids`` (k,) gathered, for at ``most`` so many rows."""
    rows, down, biases = gathered(layer, ids, copies.rows, copies.columns)
    return SwiftLayer(
        norm(layer.before_attention), product(layer.qkv, layer.qkv_bias, threads),
        product(layer.out, layer.out_bias, threads), norm(layer.after_attention), norm(layer.before_mlp),
        tuple(product(w, bias, threads) for w, bias in zip(rows, biases, strict=True)),
        columns(down, layer.down_bias, threads), norm(layer.after_mlp),
        tuple(np.empty((most, len(ids)), np.float32) for _ in rows), np.empty((most, len(ids)), np.float32),
    )  # fmt: skip


class SwiftStep:
    """One token of each row in use of ``feed``, the state's own if none is given, on the neurons of a set.

    ``run`` as ``steps.Step``'s; after ``look`` what was picked is not yet the next step's input. ``spare``: as
    ``Copies``'; the memory of this one's may be another's once it runs no more.
    """

    def __init__(
        self, network: Network, state: State, neurons: NeuronSet, feed: Feed | None = None,
        spare: list[Memory] | None = None,
    ) -> None:  # fmt: skip
        net, threads = network, torch.get_num_threads()
        self.network, self.state, self.feed = network, state, feed or state.feed
        most = len(self.feed.token)
        ids = (torch.from_numpy(x.astype("int64")) for x in neurons.layers)
        self.copies = Copies(net.layers, neurons.per_layer, [] if spare is None else spare)
        self.layers = [
            swift_layer(x, some, self.copies, threads, most) for x, some in zip(net.layers, ids, strict=True)
        ]
        self.final, self.head = norm(net.final), product(net.head, net.head_bias, threads)
        self.turns = [turns_of(net, layer) for layer in net.layers]
        self.embedding, self.places = bits(net.embedding), NONE if net.positions is None else bits(net.positions)
        self.tokens, self.slots, self.positions = (
            x.numpy() for x in (self.feed.token, self.feed.slot, self.feed.position)
        )
        self.act = compiled.ACTS.index(net.act)
        self.keys, self.values = bits(state.keys), bits(state.values)
        self.x, self.y, self.z = np.empty((3, most, net.hidden), np.float32)
        self.qkv = np.empty((most, net.heads + 2 * net.kv_heads, net.head_dim), np.float32)
        self.done = np.empty((most, net.heads, net.head_dim), np.float32)
        self.scores = np.empty((most * net.heads, state.context), np.float32)
        self.logits = self.feed.logits.numpy()
        self.neurons, self.own = neurons, list[Floats]()
        helps = compiled_int_shared.helps if isinstance(net.layers[0].qkv, Packed) else compiled_shared.helps
        self.share = team(threads, helps).share if threads > 1 else None

    def only(self, sets: Sequence[NeuronSet]) -> None:
        """Each row in use runs on its own one of ``sets``, a part of the gathered ones: the rest is 0 for it."""
        self.own = own(self.neurons, sets)

    def run(self) -> None:
        self.look()
        advance(self.state, self.feed)

    def look(self) -> None:
        """Logits of all rows in use, and the tokens picked from them; their keys and values go into the caches."""
        rows = self.feed.count
        x, y, z = self.x[:rows], self.y[:rows], self.z[:rows]
        slots, positions = self.slots[:rows], self.positions[:rows]
        compiled.embed(self.embedding, self.tokens[:rows], self.network.embedding_scale, self.places, positions, x)
        for number, layer in enumerate(self.layers):
            layer.before(x, y)
            layer.qkv(y, self.qkv[:rows].reshape(rows, -1))
            self._attend(number, slots, positions)
            layer.out(self.done[:rows].reshape(rows, -1), y)
            layer.after(y, z)
            x += z
            layer.before_mlp(x, y)
            active = self._active(layer, y)
            if self.own:
                active *= self.own[number]
            layer.down(active, y)
            layer.after_mlp(y, z)
            x += z
        self.final(x, y)
        self._head(y, self.logits[:rows])
        pick(self.feed)

    def _active(self, layer: SwiftLayer, x: Floats) -> Floats:
        projected, active = [out[: len(x)] for out in layer.projected], layer.active[: len(x)]
        for part, out in zip(layer.inputs, projected, strict=True):
            part(x, out)
        compiled.activate(projected[0], projected[1] if len(projected) == 2 else NONE, self.act, active)
        return active

    def _head(self, x: Floats, logits: Floats) -> None:
        self.head(x, logits)
        if (cap := self.network.softcap) is not None:
            np.tanh(logits / cap, out=logits)
            logits *= np.float32(cap)

    def _attend(self, number: int, slots: Whole, positions: Whole) -> None:
        """From the projections to what attention makes of them, ``done``."""
        net, layer, rows = self.network, self.network.layers[number], len(slots)
        qkv, keys, values = self.qkv[:rows], self.keys[number], self.values[number]
        compiled_heads.remember(qkv, net.heads, *self.turns[number], net.turned, keys, values, slots, positions)
        window = layer.window or self.state.context
        what = (net.heads, qkv, keys, values, slots, positions, window, net.scale, net.attention_softcap or 0.0,
                self.scores, self.done[:rows])  # fmt: skip
        looked_at = sum(min(at, window) for at in positions.tolist())
        large = looked_at * net.heads * net.head_dim > SPLIT
        if self.share is not None and large and rows * net.heads <= FEW:
            self.share(compiled_shared.shared_attend, compiled_heads.attend, *what)
        else:
            compiled_heads.attend(*what)


def turns_of(net: Network, layer: Layer) -> tuple[Floats, Floats, float, Any]:
    """What queries and keys are normed by, and the table that they are turned by; empty where there is none."""
    norms = [EMPTY if n is None else n.weight.numpy() for n in (layer.q_norm, layer.k_norm)]
    table = np.empty((0, 2, 0), np.float32) if layer.rope is None else net.ropes[layer.rope].numpy()
    return norms[0], norms[1], layer.q_norm.eps if layer.q_norm else 0.0, table
