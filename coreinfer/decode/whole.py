"""A step of one text as one kernel, ``kernels/whole``, for GPUs that copy in bulk (Hopper and later)."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from torch import Tensor

from coreinfer.decode.network import Act, Layer, Network, Norm, Weight, plain
from coreinfer.decode.state import State
from coreinfer.decode.steps import Step
from coreinfer.errors import in_words
from coreinfer.kernels.whole import NotBuilt, Shape, buildable, compiled
from coreinfer.quantised.packed import Packed

GROUP = 8  # query heads of a key head: a thread holds a mixture of each
WARPS, MIXERS, SPLITS = 8, 8, 16  # that compute, of them those that attend; programs of a key head, at most
LOT, WINDOW = 2, 3  # rows of a slot, and slots on their way: the fastest of those tried on an H200
MOST_SLOTS, FEWEST_SLOTS = 32, 4
LONGEST = 4096  # positions of a cache: with longer ones, one kernel was not measured beside several
EVEN = 16 * 32 * WARPS  # bytes of a row, or a multiple of them, of which all threads have as much


log = logging.getLogger(__name__)
_failed = set[torch.device]()  # where it was not built; no process tries twice


def unfit(network: Network) -> str | None:
    """Why this network's steps are several kernels, in words; None if one does."""
    weights = network.embedding
    if not _copies_in_bulk(weights.device):
        return "a device that does not copy in bulk"
    if not buildable():
        return "no compiler for CUDA"
    if isinstance(network.head, Packed) or weights.dtype not in (torch.bfloat16, torch.float32):
        return "weights that are neither bfloat16 nor float32"
    size, head = weights.element_size(), network.head_dim
    if network.hidden * size % 16 or head * size % 16 or head * size > 512:
        return f"a width of {network.hidden} and heads of {head}"
    if network.heads > GROUP * network.kv_heads or network.kv_heads > programs_of(weights):
        return f"{network.heads} heads for {network.kv_heads}"
    if len({norm.eps for norm in _norms(network)}) > 1:
        return "norms that differ"
    return None if Room(network, programs_of(weights)).slots >= FEWEST_SLOTS else f"a width of {network.hidden}"


def _copies_in_bulk(device: torch.device) -> bool:
    nvidia = device.type == "cuda" and torch.version.hip is None
    return nvidia and torch.cuda.get_device_capability(device) >= (9, 0)


def suits(network: Network) -> bool:
    """Whether one kernel is the faster way: not where threads are idle, as with rows of 3,072 (7% slower)."""
    return network.hidden * network.embedding.element_size() % EVEN == 0 and unfit(network) is None


def programs_of(weights: Tensor) -> int:
    """One on each multiprocessor."""
    return int(torch.cuda.get_device_properties(weights.device).multi_processor_count)


def _norms(network: Network) -> Iterator[Norm]:
    yield network.final
    for x in network.layers:
        some = (x.before_attention, x.before_mlp, x.after_attention, x.after_mlp, x.q_norm, x.k_norm)
        yield from (norm for norm in some if norm is not None)


@dataclass(frozen=True)
class Room:
    """A program's shared memory, in bytes: so many slots of rows, and what else it holds, which the source checks."""

    network: Network
    programs: int
    most_slots: int = MOST_SLOTS
    slot: int = field(init=False)
    beside: int = field(init=False)

    def __post_init__(self) -> None:
        net, size = self.network, self.network.embedding.element_size()
        group, head = net.heads // net.kv_heads, net.head_dim
        mixtures = max(MIXERS * group * (head + 2), 3 * 32 * SPLITS)
        desk = 4 * ((2 * group + 2) * head + mixtures) + 2 * head * size
        sums = 4 * (2 * 32 + 32 + 2) * (WARPS + 1) + 8 * head
        active = 4 * (_width(net) // self.programs + 2)
        object.__setattr__(self, "slot", LOT * size * max(net.hidden, net.heads * head))
        object.__setattr__(self, "beside", desk + sums + active + 1024)

    @property
    def splits(self) -> int:
        """Programs of a key head."""
        return min(SPLITS, self.programs // self.network.kv_heads)

    @property
    def slots(self) -> int:
        properties: Any = torch.cuda.get_device_properties(self.network.embedding.device)
        most = int(properties.shared_memory_per_block_optin)
        return min(self.most_slots, int((most - self.beside) // (self.slot + 16)))

    @property
    def all(self) -> int:
        return self.slots * (self.slot + 16) + self.beside


def shape_of(network: Network, room: Room) -> Shape:
    """What the kernel is compiled for."""
    net = network
    return tuple({
        "SIZE": net.embedding.element_size(), "H": net.hidden, "HEADS": net.heads, "KV": net.kv_heads,
        "D": net.head_dim, "F": _width(net), "PARTS": len(net.layers[0].rows), "ACT": get_args(Act).index(net.act),
        "CENTER": int(net.final.center), "AFTER": int(any(x.after_mlp is not None for x in net.layers)),
        "TURNED": net.turned, "PLACES": int(net.positions is not None), "VOCABULARY": len(net.head),
        "UNITS": room.programs, "WARPS": WARPS, "MIXERS": MIXERS, "SPLITS": room.splits, "LOT": LOT, "WINDOW": WINDOW,
        "SLOTS": room.slots, "SLOT": room.slot, "SHARED": room.all,
        "EPS": float(net.final.eps), "SCALE": float(net.scale), "CAP": float(net.attention_softcap or 0),
        "SOFTCAP": float(net.softcap or 0), "EMBEDDING_SCALE": float(net.embedding_scale),
    }.items())  # fmt: skip


def one_text(network: Network, state: State, kept: Sequence[int]) -> Step:
    """The faster step of a text that works here. Its kernel may run once, to see that it does; no token is picked."""
    device = network.embedding.device
    if device not in _failed and state.context <= LONGEST and suits(network):
        try:
            step = WholeStep(network, state, kept)
            step.launches[0]()  # the driver may refuse so many programs at once
            return step
        except NotBuilt as error:
            _failed.add(device)
            log.warning(
                "a step takes several kernels, up to a fifth slower, since one for all fails (%s)", in_words(error)
            )
    return Step(network, state, kept)


class WholeStep(Step):
    """``Step`` as one kernel, and a second that picks the token.

    Raises:
        NotBuilt: CUDA refuses it.
    """

    def __init__(self, network: Network, state: State, kept: Sequence[int], room: Room | None = None) -> None:
        super().__init__(network, state, kept)
        room = room or Room(network, programs_of(network.embedding))
        kernel = compiled(shape_of(network, room), network.embedding.device)
        self.told = self._told(room)
        self.layers = self._words([w for number, x in enumerate(network.layers) for w in self._layer(number, x)])
        self.whole = self._words(self._around())
        threads = 32 * (WARPS + 1)  # one warp asks for rows
        self.launches = [lambda: kernel.launch(room.programs, threads, (self.layers, self.whole)), self._pick()]

    def _told(self, room: Room) -> list[Tensor]:
        """Places for what programs tell one another, 8 bytes each, and last how many layers were told."""
        net = self.network
        queries, sides = net.heads * net.head_dim, 2 * net.kv_heads * net.head_dim
        splits = room.splits * net.heads * (net.head_dim + 2)
        sizes = (queries + sides, splits, queries, net.hidden, room.programs * net.hidden, net.hidden, 1)
        return [torch.zeros(size, dtype=torch.int64, device=net.embedding.device) for size in sizes]

    def _words(self, words: Sequence[int | Tensor | None]) -> Tensor:
        """Addresses and numbers as a struct's 8-byte members."""
        made = [x if isinstance(x, int) else 0 if x is None else x.data_ptr() for x in words]
        return torch.tensor(made, dtype=torch.int64).to(self.network.embedding.device)

    def _layer(self, number: int, layer: Layer) -> list[int | Tensor | None]:
        """The source's ``Layer``."""
        s, before = self.state, (layer.before_attention, layer.before_mlp)
        others = (layer.after_attention, layer.after_mlp, layer.q_norm, layer.k_norm)
        table = None if layer.rope is None else self.network.ropes[layer.rope]
        return [
            _rows(layer.qkv), _rows(layer.out), _rows(layer.neurons), s.keys[number], s.values[number], s.ids[number],
            layer.qkv_bias, layer.out_bias, layer.in_bias, layer.down_bias,
            *(x for n in before for x in (n.weight, n.bias)), *(None if n is None else n.weight for n in others), table,
            self.kept[number], layer.window or 1 << 40,
            _rows(layer.neurons).shape[0],
        ]  # fmt: skip

    def _around(self) -> list[int | Tensor | None]:
        """The source's ``Whole``."""
        net, f = self.network, self.state.feed
        return [
            net.embedding, net.positions, _rows(net.head), net.head_bias, net.final.weight, net.final.bias, f.token,
            f.position, f.slot, f.logits, *self.told, len(net.layers), self.state.context,
        ]  # fmt: skip


def _width(network: Network) -> int:
    """Of the widest layer, rounded up: where only kept neurons are in memory, layers and sets differ, and each width is
    compiled for.
    """
    return -(-max(len(x.rows[0]) for x in network.layers) // 1024) * 1024


def _rows(weight: Weight | None) -> Tensor:
    assert weight is not None, "the network was read without its bundle"
    made = plain(weight)
    assert made.is_contiguous(), "rows are copied in bulk"
    return made
