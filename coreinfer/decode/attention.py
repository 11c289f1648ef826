"""The launch of a step's attention, of one row or of several: what lies between kernels has the same names in both."""

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from coreinfer.decode.network import Layer, Network
from coreinfer.decode.state import Feed, State
from coreinfer.decode.words import held, power
from coreinfer.kernels.attend import attend

FAR = 1 << 30  # a window that holds every context


class Room(Protocol):
    """Where attention finds queries, keys and values, leaves what it attended to, and adds up its parts, of ``chunk``
    positions each. ``low``: elements after which what was rounded off follows, or 0 where nothing was.
    """

    chunk: int
    chunks: int
    low: int
    attended: Tensor
    qkv: Tensor
    parts: Tensor
    tops: Tensor
    sums: Tensor
    counts: Tensor


def attending(
    state: State, room: Room, feed: Feed, rows: int, number: int, layer: Layer, own: bool, pdl: dict[str, Any]
) -> Callable[[], Any]:
    """Of layer ``number``, for the first ``rows`` of ``feed``, as many as ``room`` has.

    ``own``: the row's key and value go into the cache on the way.
    """
    net, s = state.network, state
    keys, values = s.keys[number], s.values[number]
    (old_keys, _, bits), (old_values, _, _) = held(keys), held(values)
    table, heads = rope_of(net, layer), heads_of(net, layer)
    norms = [net.embedding if norm is None else norm.weight for norm in (layer.q_norm, layer.k_norm)]
    return lambda: attend[(net.heads, room.chunks, rows)](
        room.attended, room.qkv, keys, values, old_keys, old_values, table, *norms,
        feed.position, feed.slot, feed.used, s.context, room.parts, room.tops, room.sums, room.counts[0],
        net.scale, net.attention_softcap or 0.0, layer.q_norm.eps if layer.q_norm else 1.0, layer.window or FAR,
        OWN=own, CAP=net.attention_softcap is not None, CHUNK=room.chunk, S=room.chunks,
        TOGETHER=min(16, power(room.chunks)), BITS=bits, LOW=room.low, **heads, num_warps=4, **pdl,
    )  # fmt: skip


def rope_of(net: Network, layer: Layer) -> Tensor:
    """The table by which heads turn; something where there is none, which no kernel reads."""
    return net.embedding if layer.rope is None else net.ropes[layer.rope]


def heads_of(net: Network, layer: Layer) -> dict[str, Any]:
    """What kernels are compiled for, of a layer's heads."""
    return {
        "HEADS": net.heads, "KV": net.kv_heads, "D": net.head_dim, "DB": power(net.head_dim),
        "TURNED": 0 if layer.rope is None else net.turned, "NORMED": layer.q_norm is not None,
    }  # fmt: skip
