"""What tests of decoding steps share: families that decode, empty caches, neurons as the plain step takes them."""

import pytest
import torch
from families import FAMILIES, build

from coreinfer.decode.families import unsupported
from coreinfer.decode.network import Network
from coreinfer.neurons import NeuronSet

KNOWN = [name for name in FAMILIES if unsupported(build(name)) is None]
known = pytest.mark.parametrize("name", KNOWN)
PROMPT, TOTAL = 18, 26  # past the tiny models' windows of 16


def caches(net: Network, context: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    keys = torch.zeros(len(net.layers), context, net.kv_heads, net.head_dim)
    return keys, torch.zeros_like(keys)


def kept(neurons: NeuronSet) -> list[torch.Tensor]:
    return [torch.from_numpy(ids).long() for ids in neurons.layers]


def every(net: Network) -> list[torch.Tensor]:
    return [torch.arange(net.width)] * len(net.layers)
