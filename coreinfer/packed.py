"""Texts one behind another in one row, so that a Transformers model computes no padding; attention takes each text
apart. For embedders on a CPU, where that took a fifth less time than padded batches. Not for recording: causal
attention text by text took twice as long as over a padded batch, which is more than the padding of like lengths costs.

Whoever packs compares with the model's own forward before it is trusted: some models take no positions, or attend in
their own way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel

NAME = "coreinfer_packed"  # of the attention, among those of Transformers
TOKENS = 2048  # of a forward: more leave the caches, of fewer each reads all weights
TEXTS = 64  # of a forward at most: what is kept of each is larger than a short one's tokens
STEP = 16  # a row's length is its multiple: the CPU's matrix library compiles, and keeps, a kernel for every length


@dataclass(frozen=True)
class Row:
    """Texts behind each other: ``ids`` and ``positions`` (1, N), which begin anew with each text, and where the texts
    begin and the last one ends, ``starts`` (B + 1,). What is left of N, ``STEP`` - 1 tokens at most, belongs to none.
    """

    ids: Tensor
    positions: Tensor
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "Row":
        """Of texts' token ids, none of them empty."""
        starts = np.cumsum([0, *map(len, texts)])
        rest = int(-starts[-1] % STEP)
        ids = [token for text in texts for token in text] + [0] * rest
        places = np.concatenate([np.arange(size) for size in [*np.diff(starts), rest]])
        return cls(torch.tensor([ids]), torch.from_numpy(places)[None], starts)

    @property
    def spans(self) -> list[int]:
        """Where texts, and what belongs to none, begin and end."""
        size, end = self.ids.shape[1], int(self.starts[-1])
        return [*self.starts.tolist(), *([size] if size > end else [])]

    def inputs(self) -> dict[str, Tensor]:
        """What a model inside ``packing`` is called with; the place of the mask tells its attention of the texts."""
        spans = torch.tensor(self.spans)[None, None, None]
        return {"input_ids": self.ids, "position_ids": self.positions, "attention_mask": spans}


def together(sizes: NDArray[np.int64], tokens: int = TOKENS) -> list[NDArray[np.int64]]:
    """Which texts of these lengths share a row of at most so many ``tokens``: the longest first, each in the first row
    with room for it. A longer text has a row of its own.
    """
    rows, room = list[list[int]](), list[int]()
    for text in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[text])
        fit = next((i for i, left in enumerate(room) if left >= size and len(rows[i]) < TEXTS), None)
        if fit is None:
            rows.append([text])
            room.append(tokens - size)
        else:
            rows[fit].append(text)
            room[fit] -= size
    return [np.array(row) for row in rows]


@contextmanager
def packing(model: PreTrainedModel) -> Iterator[None]:
    """Inside, the model is called with a ``Row``'s inputs, and by nobody else."""
    AttentionInterface.register(NAME, _each)
    config: Any = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _each(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, dropout: float = 0.0,
    scaling: float | None = None, is_causal: bool | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as Transformers calls it, heads (1, H, N, D) -> (1, N, H, D), each text by itself.

    Raises:
        NotImplementedError: it is to be changed in a way that is not known here.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    if changed := [
        name for name in ("sliding_window", "softcap", "s_aux", "position_bias") if others.get(name) is not None
    ]:
        raise NotImplementedError(f"attention with {', '.join(changed)}")
    grouped = key.shape[1] != query.shape[1]
    out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for begin, end in pairwise(attention_mask.flatten().tolist()):
        q, k, v = (x[:, :, begin:end] for x in (query, key, value))
        made = F.scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling, enable_gqa=grouped)
        out[:, begin:end] = made.transpose(1, 2)
    return out, None
