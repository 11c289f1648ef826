"""Assigned passages through the language model -> fixed-point statistics per (cluster, layer, neuron), in one pass.

The model runs without its head: the statistic needs no logits. Sums are integers, so adding them is exact in any order.
What a passage's own share is depends, in its last bits, on the batch that it ran in, so batches are formed inside fixed
blocks of ``BLOCK`` consecutive passages, whatever else is recorded. Therefore: record a corpus in shards that begin at
multiples of ``BLOCK`` (label -1 for everything else), add their sums, and they equal one pass bit for bit, given the
same software, kind of device and dtype. Shards that cut a block may differ from it in the last bits.

It waits for the embeddings: a share is added to its cluster's sum, and there are no clusters before all passages are
embedded. Recording beside that would have to keep each passage's own share, 4 * L * F bytes: of 100,000 passages 6 GB
for the demo, 180 GB for an 8B model. And it would gain little, for nothing is idle that the two stages could share:
each keeps all cores, or the GPU, busy, but for the texts' tokenizing, a hundredth of its time.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.capture import Capture, valid_tokens
from coreinfer.models import bos_of, context_length, find_mlps
from coreinfer.settings import StatisticSettings
from coreinfer.statistic import reduced_by
from pipeline.behind import AtOnce, Behind
from pipeline.compiled import CompiledLayers, worth_compiling
from pipeline.data import Statistics
from pipeline.passages import BLOCK

BATCH, GPU_BATCH = 16, 64  # passages in a forward at most, where each device is near its fastest,
USUAL = 512  # ... and at most so many of this length: memory stays flat in their length too
# The longest passage recorded, whatever the model's context: a forward of one such passage holds 4,096 activations of
# every neuron of a layer, 0.2 GB for an 8B model, and a longer text is of several topics, which no one prompt is.
LONGEST = 4096

Batch = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]


def longest_passage(model: PreTrainedModel) -> int:
    """How many tokens of a passage can be recorded: the model's context, ``LONGEST`` at most."""
    return min(context_length(model), LONGEST)


@dataclass(frozen=True)
class Recorder:
    """Runs texts through a model's decoder and yields their shares; of longer texts the first ``max_tokens``.
    ``layers``: the model's, compiled when they first run.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: StatisticSettings
    max_tokens: int
    layers: CompiledLayers | None = None

    def compiled(self, backend: str = "inductor") -> Self:
        """The same with the model's layers compiled: see ``CompiledLayers``."""
        return replace(self, layers=CompiledLayers(self.model, backend))

    def for_corpus(self, passages: int, asked: bool | None = None) -> Self:
        """What records so many: with compiled layers if that was ``asked`` for, or pays where Triton works."""
        wanted = asked if asked is not None else worth_compiling(passages) and self.reduced_by == "kernels"
        return self.compiled() if wanted else self

    @property
    def shape(self) -> tuple[int, int]:
        """L, F."""
        mlps = find_mlps(self.model)
        return len(mlps), mlps[0].width

    @property
    def most(self) -> int:
        """Tokens of a text that are run."""
        return min(self.max_tokens, context_length(self.model))

    @property
    def batch(self) -> int:
        """Texts in a forward at most."""
        return BATCH if self.model.device.type == "cpu" else GPU_BATCH

    @property
    def reduced_by(self) -> str:
        """See ``statistic.reduced_by``; and whether layers are compiled, on which last bits depend too."""
        made = reduced_by(self.model.device, self.model.dtype, self.shape[1], self.settings)
        return f"{made}, {self.layers.made_with}" if self.layers else made

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, as they would be recorded, uncut."""
        return [len(ids) for ids in self.tokenizer(texts, verbose=False)["input_ids"]] if texts else []

    def shares(self, texts: list[str]) -> Iterator[Batch]:
        """(indices into ``texts``, shares (B, L, F), tokens (B,)) a batch; sorted by length, so that it pads little.
        Shares are NaN in a layer whose activations are no finite numbers.
        """
        if not texts:
            return
        encoded = self.tokenizer(texts, truncation=True, max_length=self.most, verbose=False)["input_ids"]
        sizes = np.array([len(ids) for ids in encoded])
        capture = self.capture()
        for picked in self._batches(sizes):
            ids, mask = pad([encoded[i] for i in picked], self.most)
            shares = self.shares_of(capture, ids.to(self.model.device), mask.to(self.model.device))
            yield picked, shares, sizes[picked]

    def rehearse(self, texts: list[str]) -> None:
        """All that recording them takes, but for the sums."""
        for _ in self.shares(texts):
            pass

    def shares_of(self, capture: Capture, ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float64]:
        """The shares (B, L, F) of token ids and their mask (B, T), on the model's device.

        Raises:
            NotCompiled: the layers were to be compiled, and cannot be.
        """
        # All end before the consumer goes on: its own work is neither captured nor without gradients.
        with capture, torch.inference_mode():
            if self.layers is None:
                return self._forward(capture, ids, mask)
            if not self.layers.ready:
                self.layers.make_ready(partial(self._forward, capture), self.most)
            with self.layers.running():
                return self._forward(capture, ids, mask)

    def capture(self) -> Capture:
        """What ``shares_of`` reduces with."""
        return Capture(self.model, self.settings, ends=True, apart=self.layers is not None)

    def _forward(self, capture: Capture, ids: torch.Tensor, mask: torch.Tensor) -> NDArray[np.float64]:
        capture.expect(valid_tokens(ids, mask, bos_of(self.model)))
        model = self.model.base_model
        return capture.shares_of(lambda: model(input_ids=ids, attention_mask=mask, use_cache=False))

    def _batches(self, sizes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """Indices of texts of like length, ``batch`` of them, fewer if they are long; the longest come first, so that
        each batch has room in what the one before it left free: the other way round, a block took 0.1 GB more.
        """
        order, batch, out = np.argsort(sizes, kind="stable"), self.batch, list[NDArray[np.int64]]()
        while len(order):
            reach = sizes[order[:batch]] * np.arange(1, len(order[:batch]) + 1)  # tokens, padded to the longest
            end = max(1, int((reach <= batch * USUAL).sum()))
            out.append(order[:end])
            order = order[end:]
        return out[::-1]


def pad(rows: list[list[int]], most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right with 0, and their attention mask, (B, T) each.

    T is a multiple of 16, or ``most``, the model's last position: the CPU's matrix library compiles, and keeps, a
    kernel for every shape that it meets.
    """
    longest = min(-(-max(len(row) for row in rows) // 16) * 16, most)
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def record_texts(
    texts: list[str], labels: NDArray[np.integer], recorder: Recorder, out: Statistics,
    tick: Callable[[int], Any] = lambda n: None,
) -> None:  # fmt: skip
    """Add consecutive passages, which begin at a multiple of ``BLOCK``, to ``out``; ``labels`` (m, n) are theirs."""
    with AtOnce() if recorder.model.device.type == "cpu" else Behind() as adding:
        for at in range(0, len(texts), BLOCK):
            mine = labels[:, at : at + BLOCK]
            chosen = np.flatnonzero(mine[0] >= 0)
            for picked, shares, tokens in recorder.shares([texts[at + i] for i in chosen]):
                adding.do(out.add, mine[:, chosen[picked]], shares, tokens)
                tick(len(picked))
