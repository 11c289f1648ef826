"""Texts one behind another in one row, so that a Transformers model computes no padding; attention takes each text
apart. For CPUs: there the rest of a layer is as fast for one long row as for a batch, and short attentions stay in the
caches.

A model is asked by its attention interface, and one packed forward of it is compared with its own forwards before it is
trusted (``packs``): some families take no positions, or attend in their own way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from weakref import WeakKeyDictionary

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
TRIAL = (19, 3)  # tokens of the texts that are tried
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-3}  # relative to the largest output; 16-bit floats have 0.05
_TRIED: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


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
        return self.starts.tolist() + ([size] if size > end else [])

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
    config: Any = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before


def _each(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor, dropout: float = 0.0,
    scaling: float | None = None, is_causal: bool | None = None, sliding_window: int | None = None, **others: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention as Transformers calls it, heads (1, H, N, D) -> (1, N, H, D), each text by itself.

    Raises:
        NotImplementedError: it is to be changed in a way that is not known here.
    """
    causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
    changed = [name for name in ("softcap", "s_aux", "position_bias") if others.get(name) is not None]
    if changed or dropout or (sliding_window and not causal):
        raise NotImplementedError(f"attention with {', '.join(changed) or 'dropout or a window to both sides'}")
    grouped = key.shape[1] != query.shape[1]
    out = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
    for begin, end in pairwise(attention_mask.flatten().tolist()):
        q, k, v = (x[:, :, begin:end] for x in (query, key, value))
        near = _near(end - begin, sliding_window)
        made = F.scaled_dot_product_attention(
            q, k, v, near, is_causal=causal and near is None, scale=scaling, enable_gqa=grouped
        )
        out[:, begin:end] = made.transpose(1, 2)
    return out, None


def _near(size: int, window: int | None) -> Tensor | None:
    """Which of a text's tokens see which, (T, T), where they do not see all before them."""
    if window is None or size <= window:
        return None
    return torch.ones(size, size, dtype=torch.bool).tril().triu(1 - window)


AttentionInterface.register(NAME, _each)


def packs(model: PreTrainedModel) -> bool:
    """Whether the model, on a CPU, computes of packed texts what it computes of each alone; tried once."""
    if model.device.type != "cpu":
        return False
    if model not in _TRIED:
        _TRIED[model] = _same(model)
    return _TRIED[model]


@torch.inference_mode()
def _same(model: PreTrainedModel) -> bool:
    most = int(model.config.get_text_config().vocab_size)
    texts = [torch.randint(most, (size,), generator=torch.Generator().manual_seed(size)).tolist() for size in TRIAL]
    row = Row.of(texts)
    inputs = row.inputs()
    try:
        alone = torch.cat([model(input_ids=torch.tensor([text]), use_cache=False)[0][0] for text in texts])
        with packing(model):
            got = model(**inputs, use_cache=False)[0][0, : row.starts[-1]]
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError):  # other shapes or arguments
        return False
    worst = (got.float() - alone.float()).abs().max()
    return bool(worst <= TOLERANCE.get(got.dtype, 0.05) * alone.float().abs().max())
