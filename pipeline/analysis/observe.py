"""One dense pass over the texts: hooks take down what each layer's activations say, and the activations are gone.

Shapes: B texts of a batch, T tokens, L layers of F neurons, W words of a set's bits; S = 2 statistics (count, energy).
What stays of a text is a few numbers, and its core set as bits for the first ``PAIRED`` texts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from coreinfer.capture import column_energies, valid_tokens
from coreinfer.mlp import watching
from coreinfer.models import bos_of, context_length, decoder_of, find_mlps
from coreinfer.neurons import uniform_budgets
from coreinfer.statistic import core_tokens
from coreinfer.turns import alone
from pipeline.analysis.bits import Bits, Floats, overlap, pack
from pipeline.analysis.plan import LONGEST, Plan
from pipeline.analysis.sentences import core_sets, count_sums, energy_sums
from pipeline.analysis.tokens import between, by_distance, used
from pipeline.record import pad

BATCH = 8  # texts of a forward, 2 at least: each is set against its neighbour
PAIRED = 256  # texts whose sets are kept to be compared, all with all: more would take pairs by the hundred thousand


def most_tokens(model: PreTrainedModel, plan: Plan) -> int:
    """Tokens read of a text at most."""
    return min(context_length(model), max(LONGEST, plan.length))


@dataclass(frozen=True)
class Observed:
    """Means over layers and tokens, of n texts each.

    Attributes:
        near: overlap of token-wise core sets at each of ``Plan.distances``, (n, D).
        apart: overlap with the tokens of another text, (n,).
        used: share of a layer's neurons used in windows of ``Plan.windows`` tokens, (n, N).
        stable: overlap of a prompt's core set with that of the prompt and more, at each of ``Plan.growths``, by
            statistic, (n, S, G); nan where a text is too short.
        sets: core sets of the first ``Plan.length`` tokens, bits (min(n, PAIRED), S, L, W).
    """

    near: Floats
    apart: Floats
    used: Floats
    stable: Floats
    sets: Bits


def observe(
    model: PreTrainedModel, rows: Sequence[NDArray[np.int32]], plan: Plan, tick: Callable[[int], Any] = lambda n: None
) -> Observed:
    """Run the texts ``rows``, token ids of at least ``plan.length`` each, at least two of them."""
    observer, parts, done = _Observer(model, plan), list[Observed](), 0
    for places in np.array_split(np.arange(len(rows)), -(-len(rows) // BATCH)):
        part = observer.batch([rows[i].tolist() for i in places])
        parts.append(Observed(part.near, part.apart, part.used, part.stable, part.sets[: max(0, PAIRED - done)]))
        done += len(places)
        tick(len(places))
    return Observed(*(np.concatenate([getattr(p, name) for p in parts]) for name in Observed.__annotations__))


class _Observer:
    def __init__(self, model: PreTrainedModel, plan: Plan) -> None:
        self.model, self.plan, self.mlps = model, plan, find_mlps(model)
        self.columns = column_energies(self.mlps)
        self.neurons = int(uniform_budgets(plan.keep, 1, self.mlps[0].width)[0])
        self.growths = plan.growths(most_tokens(model, plan))
        self.ends = sorted({plan.length, *(p for p, _ in self.growths), *(p + more for p, more in self.growths)})

    def batch(self, rows: list[list[int]]) -> Observed:
        """One forward, without the head."""
        ids, mask = (made.to(self.model.device) for made in pad(rows, most_tokens(self.model, self.plan)))
        valid = valid_tokens(ids, mask, bos_of(self.model))
        tokens, layers = [len(row) for row in rows], dict[int, Observed]()

        def hook(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
            def look(_: nn.Module, args: tuple[Any, ...]) -> None:
                a = args[0].detach().reshape(*valid.shape, -1)  # OPT: (B * T, F)
                layers[layer] = self._layer(layer, a, valid, tokens)

            return look

        with alone(decoder_of(self.model), "analyze", ends=True), torch.inference_mode(), watching(self.mlps, hook):
            self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        return _over_layers([layers[i] for i in range(len(self.mlps))])

    def _layer(self, layer: int, a: Tensor, valid: Tensor, tokens: list[int]) -> Observed:
        """``a`` (B, T, F) of one layer, ``valid`` bool (B, T), ``tokens``: of each text, before its padding."""
        core = [core_tokens(one[which], self.plan.alpha, "magnitude") for one, which in zip(a, valid, strict=True)]
        seen = valid.cumsum(1).cpu().numpy()  # tokens that count, up to each place
        whole = seen[:, self.plan.length - 1]
        bits = [pack(one[:end].cpu().numpy()) for one, end in zip(core, whole, strict=True)]
        grown = [
            self._beginnings(a[i, valid[i]], one, self.columns[layer], seen[i, :count])
            for i, (one, count) in enumerate(zip(core, tokens, strict=True))
        ]
        return Observed(
            np.stack([by_distance(one, self.plan.distances) for one in bits]),
            np.array([between(one, bits[i - 1]) for i, one in enumerate(bits)]),
            np.stack([used(one, len(self.plan.windows), a.shape[-1]) for one in bits]),
            np.stack([stable for stable, _ in grown]),
            np.stack([sets for _, sets in grown])[:, :, None],
        )

    def _beginnings(self, a: Tensor, core: Tensor, columns: Tensor, seen: NDArray[np.int64]) -> tuple[Floats, Bits]:
        """Of one text in one layer: overlaps (S, G), and the core sets (S, W) of the first ``plan.length`` tokens."""
        ends = [end for end in self.ends if end <= len(seen)]
        at, counted = {end: i for i, end in enumerate(ends)}, [int(seen[end - 1]) for end in ends]
        sums = (count_sums(core, counted), energy_sums(a, columns, counted))
        sets = np.stack([core_sets(each, self.neurons) for each in sums])  # (S, E, W)
        stable = np.full((len(sets), len(self.growths)), np.nan)
        for g, (prompt, more) in enumerate(self.growths):
            if prompt + more in at:
                stable[:, g] = overlap(sets[:, at[prompt]], sets[:, at[prompt + more]])
        return stable, sets[:, at[self.plan.length]]


def _over_layers(layers: list[Observed]) -> Observed:
    """Means of all but the sets, which stand side by side."""
    means = {name: np.mean([getattr(o, name) for o in layers], axis=0) for name in ("near", "apart", "used", "stable")}
    return Observed(**means, sets=np.concatenate([o.sets for o in layers], axis=2))
