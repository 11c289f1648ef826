"""Assigned passages through the language model -> fixed-point statistics per (cluster, layer, neuron), in one pass.

The model runs without its head: the statistic needs no logits. Sums are integers, so merging is addition and exact.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.capture import Capture, valid_tokens
from coreinfer.models import find_mlps
from coreinfer.neurons import Sums, fixed, merge
from coreinfer.settings import StatisticSettings
from pipeline.embed import read_windows

BATCH, GPU_BATCH = 16, 64  # passages in a forward: memory stays flat, and each device is near its fastest


@dataclass
class Statistics:
    """Sums of shares (K, L, F) in fixed point, passages (K,) and tokens (K,) behind them."""

    sums: Sums
    passages: NDArray[np.int64]
    tokens: NDArray[np.int64]

    @classmethod
    def zeros(cls, clusters: int, layers: int, width: int) -> "Statistics":
        counts = np.zeros((2, clusters), np.int64)
        return cls(np.zeros((clusters, layers, width), np.int64), counts[0], counts[1])

    def add(self, clusters: NDArray[np.int64], shares: NDArray[np.float64], tokens: NDArray[np.int64]) -> None:
        """One batch of passages: their clusters (B,), shares (B, L, F) and token counts (B,)."""
        for cluster, one in zip(clusters, fixed(shares), strict=True):
            self.sums[cluster] += one
        np.add.at(self.passages, clusters, 1)
        np.add.at(self.tokens, clusters, tokens)

    def merged(self, other: "Statistics") -> "Statistics":
        """Two shards of one corpus -> the statistics of both."""
        return Statistics(merge(self.sums, other.sums), self.passages + other.passages, self.tokens + other.tokens)

    def grouped(self, groups: NDArray[np.int64]) -> "Statistics":
        """Fine clusters -> coarse ones, by addition; ``groups`` (K,) holds each fine cluster's coarse id."""
        out = Statistics.zeros(int(groups.max()) + 1, *self.sums.shape[1:])
        for mine, theirs in ((out.sums, self.sums), (out.passages, self.passages), (out.tokens, self.tokens)):
            np.add.at(mine, groups, theirs)
        return out


@dataclass(frozen=True)
class Recorder:
    """Runs texts through a model's decoder and yields their shares, sorted by length so that a batch pads little."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: StatisticSettings
    max_tokens: int

    def shares(self, texts: list[str]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]]:
        """(indices into ``texts``, shares (B, L, F), tokens (B,)) a batch."""
        encoded = self.tokenizer(texts, truncation=True, max_length=self.max_tokens, verbose=False)["input_ids"]
        order = np.argsort([len(ids) for ids in encoded], kind="stable")
        mlps = find_mlps(self.model)
        batch = BATCH if self.model.device.type == "cpu" else GPU_BATCH
        with Capture(self.model, self.settings, mlps) as capture, torch.inference_mode():
            for at in range(0, len(order), batch):
                picked = order[at : at + batch]
                ids, mask = pad([encoded[i] for i in picked])
                ids, mask = ids.to(self.model.device), mask.to(self.model.device)
                bos = self.model.config.get_text_config().bos_token_id
                capture.expect(valid_tokens(ids, mask, bos if isinstance(bos, int) else None))
                self.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
                yield picked, capture.shares(), mask.sum(1).cpu().numpy()


def pad(rows: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids, padded on the right with 0, and their attention mask, (B, T) each.

    T is a multiple of 16: the CPU's matrix library compiles, and keeps, a kernel for every shape that it meets.
    """
    longest = -(-max(len(row) for row in rows) // 16) * 16
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    return ids, mask


def record(
    passages: Path,
    labels: NDArray[np.int64],
    clusters: int,
    recorder: Recorder,
    tick: Callable[[int], Any] = lambda n: None,
) -> Statistics:
    """One pass over the corpus; passages labelled -1 (held out) are left out."""
    mlps = find_mlps(recorder.model)
    out = Statistics.zeros(clusters, len(mlps), mlps[0].width)
    for start, texts in read_windows(passages):
        mine = labels[start : start + len(texts)]
        chosen = np.flatnonzero(mine >= 0)
        for picked, shares, tokens in recorder.shares([texts[i] for i in chosen]) if len(chosen) else ():
            out.add(mine[chosen[picked]], shares, tokens)
            tick(len(picked))
    return out
