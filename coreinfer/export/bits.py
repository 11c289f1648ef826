"""Neuron sets as packed bits in one file, from which a reader takes a single set: NumPy and the standard library.

``artifacts/FORMAT.md`` specifies it, ``examples/read_sets.py`` reads it in some 30 lines. One set of the file is read
without the others, and its hash is checked before a bit of it is believed.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError, in_words
from coreinfer.neurons import NeuronSet, pack, unpack
from coreinfer.places import moved_in, writing

MAGIC, VERSION = b"CORESETS", 1
HEAD = struct.Struct("<8s4Id32s32s32s")  # magic, version, layers, width, sets, keep, and three hashes
ROW = np.dtype([("cluster", "<i4"), ("sha256", "V32")])
BEGIN = HEAD.size + 32  # the table: behind the head and the hash of both
MOST_SETS = 1 << 20


@dataclass(frozen=True)
class Origin:
    """What sets are of, in hexadecimal: the ``weights`` and ``setup`` of the manifest's model, and the sha256 of that
    ``manifest``; zeros where no artifact made them.
    """

    weights: str
    setup: str
    manifest: str = "0" * 64


def write_sets(path: Path, origin: Origin, keep: float, sets: Sequence[tuple[int, NeuronSet]], remedy: str) -> None:
    """Write sets of one model, each under the number of its cluster, by rising number.

    Raises:
        CoreInferError: none, two of one number, or the disk refuses; ``remedy`` is what to do then.
    """
    numbers = [number for number, _ in sets]
    if not sets or numbers != sorted(set(numbers)):
        raise CoreInferError(f"the sets are numbered {numbers[:8]}: give at least one, by rising number, each once")
    bodies = [b"".join(pack(neurons)) for _, neurons in sets]
    first = sets[0][1]
    head = HEAD.pack(
        MAGIC, VERSION, len(first.layers), first.width, len(sets), keep, *map(bytes.fromhex, _hashes(origin))
    )
    table = b"".join(
        struct.pack("<i", number) + hashlib.sha256(body).digest() for number, body in zip(numbers, bodies, strict=True)
    )
    with writing(path, remedy), moved_in(path) as part, part.open("wb") as file:
        file.writelines([head, hashlib.sha256(head + table).digest(), table, *bodies])


def _hashes(origin: Origin) -> tuple[str, str, str]:
    return origin.weights, origin.setup, origin.manifest


@dataclass(frozen=True)
class SetFile:
    """An opened file: what its sets are of, and which there are; ``read`` reads one."""

    path: Path
    layers: int
    width: int
    keep: float
    origin: Origin
    clusters: tuple[int, ...]
    _sha256: tuple[bytes, ...]

    @classmethod
    def load(cls, path: str | Path) -> "SetFile":
        """
        Raises:
            CoreInferError: no such file, or one that does not follow the format or was changed.
        """
        path = Path(path)
        try:
            return cls._read(path)
        except OSError as error:
            raise CoreInferError(f"cannot read the neuron sets {path}: {in_words(error)}; check the path") from error
        except ValueError as error:
            raise _broken(path, error) from error

    @classmethod
    def _read(cls, path: Path) -> "SetFile":
        with path.open("rb") as file:
            head = file.read(BEGIN)
            if len(head) < BEGIN or head[:8] != MAGIC:
                raise ValueError(f"it does not begin with {MAGIC.decode()}")
            _, version, layers, width, count, keep, *hashes = HEAD.unpack(head[: HEAD.size])
            if version != VERSION:
                raise ValueError(f"version {version}, not {VERSION}")
            if not (1 <= count <= MOST_SETS and layers and width and 0 < keep <= 1):
                raise ValueError(f"{count} sets of {layers} layers of {width} neurons at keep {keep}")
            size = BEGIN + count * (ROW.itemsize + layers * -(-width // 8))
            if path.stat().st_size != size:
                raise ValueError(f"{path.stat().st_size:,} bytes where {size:,} belong")
            raw = file.read(count * ROW.itemsize)
        if hashlib.sha256(head[: HEAD.size] + raw).digest() != head[HEAD.size :]:
            raise ValueError("its head and table do not have their hash")
        table: NDArray[np.void] = np.frombuffer(raw, ROW)
        if count > 1 and (np.diff(table["cluster"].astype(np.int64)) <= 0).any():
            raise ValueError("its sets are not by rising number")
        origin = Origin(*(one.hex() for one in hashes))
        clusters = tuple(int(one) for one in table["cluster"])
        return cls(path, layers, width, keep, origin, clusters, tuple(one.tobytes() for one in table["sha256"]))

    def read(self, cluster: int) -> NeuronSet:
        """One set.

        Raises:
            CoreInferError: there is none of that number, or it was changed.
        """
        if cluster not in self.clusters:
            raise CoreInferError(f"{self.path} has no set {cluster}: it has {named(self.clusters)}")
        at, row = self.clusters.index(cluster), -(-self.width // 8)
        try:
            with self.path.open("rb") as file:
                file.seek(BEGIN + len(self.clusters) * ROW.itemsize + at * self.layers * row)
                raw = file.read(self.layers * row)
            if hashlib.sha256(raw).digest() != self._sha256[at]:
                raise ValueError(f"set {cluster} does not have its hash")
            return unpacked(raw, self.layers, self.width)
        except (OSError, ValueError) as error:
            raise _broken(self.path, error) from error


def unpacked(raw: bytes, layers: int, width: int) -> NeuronSet:
    """``layers`` rows of packed bits -> a set.

    Raises:
        ValueError: bits behind the last neuron are set, or a layer keeps none.
    """
    row = -(-width // 8)
    rows = [raw[at : at + row] for at in range(0, layers * row, row)]
    if width % 8 and any(one[-1] >> width % 8 for one in rows):
        raise ValueError(f"it has bits behind neuron {width - 1}")
    neurons = unpack(rows, width)
    if 0 in neurons.per_layer:
        raise ValueError(f"layer {neurons.per_layer.index(0)} keeps no neuron")
    return neurons


def named(numbers: Iterable[int]) -> str:
    """The first few of many numbers."""
    every = list(numbers)
    return ", ".join(map(str, every[:8])) + (f" and {len(every) - 8} more" if len(every) > 8 else "")


def _broken(path: Path, error: Exception) -> CoreInferError:
    return CoreInferError(f"{path} is no file of neuron sets ({in_words(error)}): export or import it again")
