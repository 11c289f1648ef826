"""The same step on a CPU: gathered weights, a handful of torch calls a layer, and nothing allocated that is large.

A CPU reads bfloat16 weights fastest through ``mv``: half as fast again as through ``linear``, whose library is made for
batches. Each call costs microseconds whatever it does, so calls are few, and their arguments ready.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from coreinfer.decode.network import Layer, Network, Norm
from coreinfer.decode.reference import ACTS
from coreinfer.decode.state import State
from coreinfer.neurons import NeuronSet


@dataclass(frozen=True)
class Kept:
    """A layer's gathered weights: ``inputs`` ((P - 1) k, H) and their biases or None, ``down`` (H, k)."""

    inputs: Tensor
    down: Tensor
    bias: Tensor | None


def gathered(layer: Layer, ids: Tensor) -> Kept:
    """The neurons ``ids`` (k,) of a layer, one part below another."""
    *rows, down = layer.rows
    bias = None if layer.in_bias is None else layer.in_bias[:, ids].flatten().to(rows[0].dtype)
    return Kept(torch.cat([x[ids] for x in rows]), down[ids].T.contiguous(), bias)


class LeanStep:
    """One token on the neurons of a set; ``run`` as ``steps.Step``'s."""

    def __init__(self, network: Network, state: State, neurons: NeuronSet) -> None:
        self.network, self.state = network, state
        self.act = ACTS[network.act]
        ids = (torch.from_numpy(x.astype("int64")) for x in neurons.layers)
        self.kept = [gathered(layer, some) for layer, some in zip(network.layers, ids, strict=True)]
        self.dtype = network.embedding.dtype
        self.biases = [
            tuple(None if b is None else b.to(self.dtype) for b in (x.qkv_bias, x.out_bias, x.down_bias))
            for x in network.layers
        ]
        self.ropes = [self._swapped(table) for table in network.ropes]

    def _swapped(self, table: Tensor) -> Tensor:
        """A rope's table (C, 2, D) whose sines are negative where a head's partner is: no sign is changed later."""
        out, half = table.clone(), self.network.turned // 2
        out[:, 1, :half] *= -1
        return out.to(self.dtype)

    @torch.inference_mode()
    def run(self) -> None:
        net, s = self.network, self.state
        token, at = int(s.token), int(s.position)
        x = net.embedding[token] * net.embedding_scale
        if net.positions is not None:
            x = x + net.positions[at]
        for number, layer in enumerate(net.layers):
            qkv_bias, out_bias, down_bias = self.biases[number]
            done = self._attend(number, layer, product(layer.qkv, normed(x, layer.before_attention), qkv_bias), at)
            done = product(layer.out, done, out_bias)
            x = x + (done if layer.after_attention is None else normed(done, layer.after_attention))
            done = product(self.kept[number].down, self._active(number, normed(x, layer.before_mlp)), down_bias)
            x = x + (done if layer.after_mlp is None else normed(done, layer.after_mlp))
        self._end(product(net.head, normed(x, net.final), None), at)

    def _active(self, number: int, x: Tensor) -> Tensor:
        """The activations of the layer's kept neurons, (k,)."""
        mine = self.kept[number]
        a = product(mine.inputs, x, mine.bias)
        if not self.network.gated:
            return self.act(a)
        gate, up = a.view(2, -1)
        return self.act(gate) * up

    def _attend(self, number: int, layer: Layer, qkv: Tensor, at: int) -> Tensor:
        """What attention makes of the projections (A + 2 G,): (A,)."""
        net, s = self.network, self.state
        heads = qkv.view(-1, net.head_dim)
        turning = heads[: net.heads + net.kv_heads]
        if layer.q_norm is not None and layer.k_norm is not None:
            turning = torch.cat(
                [normed(turning[: net.heads], layer.q_norm), normed(turning[net.heads :], layer.k_norm)]
            )
        if layer.rope is not None:
            turning = self._turned(turning, self.ropes[layer.rope][at])
        keys, values = s.keys[number], s.values[number]
        keys[at], values[at] = turning[net.heads :], heads[net.heads + net.kv_heads :]
        since = 0 if layer.window is None else max(0, at + 1 - layer.window)
        k, v = keys[since : at + 1].transpose(0, 1), values[since : at + 1].transpose(0, 1)  # (kv_heads, T, D)
        score = torch.matmul(turning[: net.heads].view(net.kv_heads, -1, net.head_dim), k.transpose(1, 2)) * net.scale
        if net.attention_softcap is not None:
            score = torch.tanh(score / net.attention_softcap) * net.attention_softcap
        weight: Tensor = torch.softmax(score, -1, dtype=torch.float32).to(v.dtype)
        return torch.matmul(weight, v).flatten()

    def _turned(self, x: Tensor, table: Tensor) -> Tensor:
        """Heads (n, D) at a place whose table is (2, D)."""
        turned = self.network.turned
        if turned == x.shape[1]:
            return torch.addcmul(x * table[0], x.roll(turned // 2, 1), table[1])
        part = torch.addcmul(x[:, :turned] * table[0, :turned], x[:, :turned].roll(turned // 2, 1), table[1, :turned])
        return torch.cat([part, x[:, turned:]], 1)

    def _end(self, logits: Tensor, at: int) -> None:
        """Store the logits and pick the next token, as the kernel does."""
        net, s = self.network, self.state
        logits = logits.float() if net.head_bias is None else logits.float() + net.head_bias
        s.logits.copy_(logits if net.softcap is None else torch.tanh(logits / net.softcap) * net.softcap)
        heat = float(s.temperature)
        if heat > 0:
            noise = torch.Generator().manual_seed(int(s.seed) + at)
            drawn = torch.multinomial(torch.softmax(s.logits / heat, 0), 1, generator=noise)
        else:
            drawn = s.logits.argmax()
        s.token.fill_(int(drawn)), s.position.fill_(at + 1)
        s.history[at + 1] = s.token[0]


def product(weight: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    """weight (m, n) times x (n,), plus bias (m,)."""
    return torch.mv(weight, x) if bias is None else torch.addmv(bias, weight, x)


def normed(x: Tensor, norm: Norm) -> Tensor:
    """Over the last axis; as exact as float32, rounded once."""
    if norm.center:
        return layer_norm(x.float(), norm.weight.shape, norm.weight, norm.bias, norm.eps).to(x.dtype)
    return rms_norm(x.float(), norm.weight.shape, norm.weight, norm.eps).to(x.dtype)
