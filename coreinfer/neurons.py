"""PURE: statistics -> neuron sets. NumPy arrays in, NumPy arrays out; no I/O, no torch, no transformers.

Shapes: L layers, F neurons a layer, m clusters of a mixture. A *share* is a statistic normalised to sum 1 in a layer.

Sums of shares are kept in fixed point (int64, 2^-36), because integer addition does not depend on the order: merging
any sharding of a corpus equals one pass bit for bit, and two builds with one seed are byte-identical.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError

Floats = NDArray[np.floating]
Sums = NDArray[np.int64]
FIXED_POINT = 2.0**36


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """The neurons to keep: per layer the sorted int32 ids, out of ``width`` (F)."""

    layers: tuple[NDArray[np.int32], ...]
    width: int

    def __post_init__(self) -> None:
        """
        Raises:
            CoreInferError: no layers, or ids that are not int32, sorted, each once, and from 0 to F - 1.
        """
        if not self.layers:
            raise CoreInferError("the neuron set has no layers: give the ids of each layer's neurons")
        for layer, ids in enumerate(self.layers):
            if fault := _fault(ids, self.width):
                raise CoreInferError(
                    f"layer {layer} of the neuron set {fault}: give sorted int32 ids from 0 to {self.width - 1}, each "
                    "once"
                )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, NeuronSet) or (self.width, len(self.layers)) != (other.width, len(other.layers)):
            return False
        return all(map(np.array_equal, self.layers, other.layers))

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.width, *(ids.tobytes() for ids in self.layers)))

    @property
    def per_layer(self) -> list[int]:
        """How many neurons each layer keeps."""
        return [len(ids) for ids in self.layers]

    @property
    def keep(self) -> float:
        """Share of all MLP neurons kept."""
        return sum(self.per_layer) / (self.width * len(self.layers))

    def mask(self) -> NDArray[np.bool_]:
        """The same as bool (L, F)."""
        return self._mask.copy()

    @cached_property
    def _mask(self) -> NDArray[np.bool_]:
        out = np.zeros((len(self.layers), self.width), bool)
        for row, ids in zip(out, self.layers, strict=True):
            row[ids] = True
        return out


def every(layers: int, width: int) -> NeuronSet:
    """All neurons of all layers."""
    return NeuronSet((np.arange(width, dtype=np.int32),) * layers, width)


def _fault(ids: NDArray[np.int32], width: int) -> str:
    """What is wrong with one layer's ids, with the values; empty if nothing is."""
    if not isinstance(ids, np.ndarray) or ids.dtype != np.int32 or ids.ndim != 1:
        return f"holds {getattr(ids, 'dtype', type(ids).__name__)} of shape {np.shape(ids)}"
    steps = np.flatnonzero(np.diff(ids) <= 0)
    if len(steps):
        return f"has neuron {ids[steps[0] + 1]} after {ids[steps[0]]}"
    if len(ids) and (ids[0] < 0 or ids[-1] >= width):
        return f"has neuron {ids[0] if ids[0] < 0 else ids[-1]} of {width}"
    return ""


def share(statistic: Floats) -> NDArray[np.float64]:
    """Normalise (..., F) to sum 1; a layer without any activity becomes uniform, so that it ranks nothing."""
    total = np.asarray(statistic, np.float64).sum(-1, keepdims=True)
    uniform = np.full_like(total, 1.0 / statistic.shape[-1])
    return np.where(total > 0, statistic / np.where(total > 0, total, 1.0), uniform)


def fixed(shares: Floats) -> Sums:
    """Shares -> fixed point, exact to 2^-37 each; room for 2^27 passages in one cluster."""
    return np.rint(np.asarray(shares, np.float64) * FIXED_POINT).astype(np.int64)


def mean_share(sums: Sums, passages: int) -> NDArray[np.float64]:
    """Fixed-point sums (..., F) of ``passages`` shares -> their mean, normalised; uniform when there are none."""
    return share(sums / FIXED_POINT / max(passages, 1))


def shrink(cluster: Floats, passages: int, prior: Floats, weight: float) -> NDArray[np.float64]:
    """A cluster's mean share, drawn towards ``prior`` as if that were ``weight`` more passages."""
    return np.asarray((passages * cluster + weight * prior) / (passages + weight), np.float64)


def mixture_weights(similarities: Floats, sharpness: float) -> NDArray[np.float64]:
    """Softmax of ``sharpness * similarities`` (m,) -> weights (m,) that sum to 1."""
    z = sharpness * (np.asarray(similarities, np.float64) - np.max(similarities))
    return np.asarray(np.exp(z) / np.exp(z).sum(), np.float64)


def mix(priors: Floats, weights: Floats) -> NDArray[np.float64]:
    """Priors (m, L, F) and weights (m,) -> (L, F)."""
    return np.asarray(np.tensordot(np.asarray(weights, np.float64), np.asarray(priors, np.float64), 1))


def blend(prompt: Floats, prior: Floats, prompt_tokens: int, n0: float) -> NDArray[np.float64]:
    """score = (P * prompt + n0 * prior) / (P + n0), both normalised to sum 1 within a layer."""
    return np.asarray((prompt_tokens * share(prompt) + n0 * share(prior)) / (prompt_tokens + n0), np.float64)


def uniform_budgets(keep: float, layers: int, width: int) -> NDArray[np.int64]:
    """The same number of neurons in each layer: round(keep * F), at least 1."""
    return np.full(layers, max(1, round(keep * width)), np.int64)


def order_of(score: Floats) -> NDArray[np.int64]:
    """Each layer's neurons, best first, (..., F); ties go to the lower id."""
    return np.argsort(-np.asarray(score, np.float64), axis=-1, kind="stable")


def places(score: Floats) -> NDArray[np.int32]:
    """Each neuron's place in its layer, (..., F), 0 for the best: ``places < budget`` is the set of any budget."""
    order = order_of(score)
    out = np.empty(order.shape, np.int32)
    np.put_along_axis(out, order, np.broadcast_to(np.arange(order.shape[-1], dtype=np.int32), order.shape), axis=-1)
    return out


def top(score: Floats, budgets: NDArray[np.int64]) -> NeuronSet:
    """The ``budgets[l]`` best neurons of each layer of ``score`` (L, F); ties go to the lower id, NaN is the worst."""
    least = np.nan_to_num(-np.asarray(score, np.float64), nan=np.inf, posinf=np.inf, neginf=-np.inf)
    picked = (_best(row, int(k)) for row, k in zip(least, budgets, strict=True))
    return NeuronSet(tuple(picked), int(score.shape[-1]))


def _best(row: NDArray[np.float64], k: int) -> NDArray[np.int32]:
    """The ids of the ``k`` least of a row; not by its order, which takes ten times as long to find."""
    if not 0 < k < len(row):
        return np.arange(len(row) if k > 0 else 0, dtype=np.int32)
    last = np.partition(row, k - 1)[k - 1]
    among = row < last
    among[np.flatnonzero(row == last)[: k - int(among.sum())]] = True
    return np.flatnonzero(among).astype(np.int32)


def pack(neurons: NeuronSet) -> list[bytes]:
    """Per layer, ceil(F / 8) bytes: bit i % 8 of byte i // 8 (least significant first) is neuron i."""
    return [np.packbits(row, bitorder="little").tobytes() for row in neurons.mask()]


def unpack(rows: list[bytes], width: int) -> NeuronSet:
    """The inverse of ``pack``."""
    bits = (np.unpackbits(np.frombuffer(row, np.uint8), count=width, bitorder="little") for row in rows)
    return NeuronSet(tuple(np.flatnonzero(b).astype(np.int32) for b in bits), width)


def overlap(a: NeuronSet, b: NeuronSet) -> float:
    """Share of a's neurons that are b's too, averaged over layers: 1 for equal sets, about keep for unrelated ones."""
    both = [np.isin(x, y).mean() if len(x) else 1.0 for x, y in zip(a.layers, b.layers, strict=True)]
    return float(np.mean(both))


def captured(shares: Floats, neurons: NeuronSet) -> float:
    """Share of a text's statistic (L, F) that a neuron set holds, averaged over layers."""
    return float(np.mean([row[ids].sum() for row, ids in zip(shares, neurons.layers, strict=True)]))
