"""The same step on a CPU: gathered weights, few torch calls a layer, and nothing allocated that is large.

What is between weights is float32. A CPU reads large bfloat16 weights fastest through ``mv``, half as fast again as
through ``linear``, whose library is made for batches. But each such call costs some 40 microseconds whatever it does,
and a float32 one 10, so small matrices, which lie in the processor's cache, are held in float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, scaled_dot_product_attention

from coreinfer.decode.network import Layer, Network, Norm, Weight, gathered
from coreinfer.decode.own import own
from coreinfer.decode.picking import advance, pick
from coreinfer.decode.reference import ACTS
from coreinfer.decode.state import Feed, State
from coreinfer.neurons import NeuronSet
from coreinfer.quantised.packed import Packed

SMALL = 1 << 21  # elements of a matrix below which float32 is faster than bfloat16, though twice the bytes

Product = Callable[[Tensor], Tensor]


def dense(weight: Weight, dtype: torch.dtype) -> Tensor:
    """Torch multiplies floats alone: quantised weights are made such when a set is gathered."""
    return weight.dequantised(dtype) if isinstance(weight, Packed) else weight


def product(weight: Tensor, bias: Tensor | None) -> Product:
    """The function x (n,) -> weight (m, n) @ x + bias (m,), float32 both."""
    if weight.numel() <= SMALL:
        weight = weight.float()
    dtype = weight.dtype
    if dtype is torch.float32:
        return (lambda x: torch.mv(weight, x)) if bias is None else (lambda x: torch.addmv(bias, weight, x))
    plain: Product = lambda x: torch.mv(weight, x.to(dtype)).float()  # noqa: E731
    return plain if bias is None else (lambda x: plain(x) + bias)


def normalizer(norm: Norm | None) -> Product:
    """The function that norms a vector (n,) of float32, or hands it on."""
    if norm is None:
        return lambda x: x
    weight, eps, shape = norm.weight, norm.eps, norm.weight.shape
    if norm.center:
        return lambda x: layer_norm(x, shape, weight, norm.bias, eps)
    size = len(weight)
    return lambda x: torch.mul(x, weight).mul_((float(torch.dot(x, x)) / size + eps) ** -0.5)


def normed_heads(x: Tensor, norm: Norm) -> Tensor:
    """RMS norm of each head (n, D)."""
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + norm.eps) * norm.weight


@dataclass(frozen=True)
class LeanLayer:
    """What a step calls of a layer, in order."""

    before: Product
    qkv: Product
    out: Product
    after: Product
    before_mlp: Product
    inputs: tuple[Product, ...]
    down: Product
    after_mlp: Product


def lean_layer(layer: Layer, ids: Tensor, dtype: torch.dtype) -> LeanLayer:
    """With the neurons ``ids`` (k,) gathered; quantised weights in ``dtype``."""
    rows, down, biases = gathered(layer, ids)
    columns = down if isinstance(down, Tensor) else down.dequantised(dtype).T.contiguous()
    return LeanLayer(
        before=normalizer(layer.before_attention), qkv=product(dense(layer.qkv, dtype), layer.qkv_bias),
        out=product(dense(layer.out, dtype), layer.out_bias), after=normalizer(layer.after_attention),
        before_mlp=normalizer(layer.before_mlp),
        inputs=tuple(product(dense(w, dtype), bias) for w, bias in zip(rows, biases, strict=True)),
        down=product(columns, layer.down_bias), after_mlp=normalizer(layer.after_mlp),
    )  # fmt: skip


class LeanStep:
    """As ``swift.SwiftStep``, one row after the other."""

    def __init__(self, network: Network, state: State, neurons: NeuronSet, feed: Feed | None = None) -> None:
        self.network, self.state, self.feed = network, state, feed or state.feed
        self.act = ACTS[network.act]
        ids = (torch.from_numpy(x.astype("int64")) for x in neurons.layers)
        dtype = network.embedding.dtype
        self.layers = [lean_layer(layer, some, dtype) for layer, some in zip(network.layers, ids, strict=True)]
        self.final, self.head = normalizer(network.final), product(dense(network.head, dtype), network.head_bias)
        self.sign = torch.ones(network.head_dim)
        self.sign[: network.turned // 2] = -1  # of what a head's first half gets from its second
        self.neurons, self.own = neurons, list[Tensor]()

    def only(self, sets: Sequence[NeuronSet]) -> None:
        """As ``swift.SwiftStep``'s."""
        self.own = [torch.from_numpy(masks) for masks in own(self.neurons, sets)]

    def run(self) -> None:
        self.look()
        advance(self.state, self.feed)

    @torch.inference_mode()
    def look(self) -> None:
        """Logits of all rows in use, and the tokens picked from them; their keys and values go into the caches."""
        net, feed = self.network, self.feed
        for row in range(feed.count):
            token, at, slot = int(feed.token[row]), int(feed.position[row]), int(feed.slot[row])
            x = net.embedding[token].float() * net.embedding_scale
            if net.positions is not None:
                x += net.positions[at]
            for number, layer in enumerate(self.layers):
                x = x + layer.after(layer.out(self._attend(number, layer.qkv(layer.before(x)), at, slot)))
                active = self._active(layer.inputs, layer.before_mlp(x))
                x += layer.after_mlp(layer.down(active * self.own[number][row] if self.own else active))
            logits, cap = self.head(self.final(x)), net.softcap
            feed.logits[row] = logits if cap is None else torch.tanh(logits / cap) * cap
        pick(feed)

    def _active(self, inputs: tuple[Product, ...], x: Tensor) -> Tensor:
        """The normed residual stream (H,) -> activations (k,)."""
        a = self.act(inputs[0](x))
        return a.mul_(inputs[1](x)) if len(inputs) == 2 else a

    def _attend(self, number: int, qkv: Tensor, at: int, slot: int) -> Tensor:
        """What attention makes of the projections (A + 2 G,): (A,)."""
        net, s, layer = self.network, self.state, self.network.layers[number]
        heads, keys, values = qkv.view(-1, net.head_dim), s.keys[number, slot], s.values[number, slot]
        turning = heads[: net.heads + net.kv_heads]
        if layer.q_norm is not None and layer.k_norm is not None:
            parts = turning[: net.heads], turning[net.heads :]
            turning = torch.cat([normed_heads(parts[0], layer.q_norm), normed_heads(parts[1], layer.k_norm)])
        if layer.rope is not None:
            turning = self._turned(turning, self.network.ropes[layer.rope][at])
        keys[at], values[at] = turning[net.heads :], heads[net.heads + net.kv_heads :]
        since = 0 if layer.window is None else max(0, at + 1 - layer.window)
        k, v = keys[since : at + 1].transpose(0, 1), values[since : at + 1].transpose(0, 1)  # (kv_heads, T, D)
        return self._attended(turning[: net.heads].to(k.dtype), k, v).flatten().float()

    def _attended(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Queries (heads, D), keys and values (kv_heads, T, D) -> (heads, D)."""
        net, cap = self.network, self.network.attention_softcap
        if cap is None:
            many = net.heads != net.kv_heads
            q = q[None, :, None]
            return scaled_dot_product_attention(q, k[None], v[None], scale=net.scale, enable_gqa=many)[0, :, 0]
        score = torch.matmul(q.view(net.kv_heads, -1, net.head_dim), k.transpose(1, 2)) * net.scale
        weight: Tensor = torch.softmax(torch.tanh(score / cap) * cap, -1, dtype=torch.float32)
        return torch.matmul(weight.to(v.dtype), v)

    def _turned(self, x: Tensor, table: Tensor) -> Tensor:
        """Heads (n, D) at a place whose table is (2, D)."""
        turned, sin = self.network.turned, table[1] * self.sign
        if turned == x.shape[1]:
            return torch.addcmul(x * table[0], x.roll(turned // 2, 1), sin)
        some = x[:, :turned]
        part = torch.addcmul(some * table[0, :turned], some.roll(turned // 2, 1), sin[:turned])
        return torch.cat([part, x[:, turned:]], 1)
