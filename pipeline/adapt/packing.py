"""Texts one after another in one row of tokens; windows of that row, and the segments of texts that they hold."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ids = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Row:
    """All texts' tokens, int32 (n,), and where each text starts, int64 (texts + 1,); the last start is n."""

    ids: Tensor
    starts: Tensor

    @property
    def texts(self) -> int:
        return len(self.starts) - 1

    def text(self, number: int) -> list[int]:
        """One text's tokens."""
        piece: list[int] = self.ids[self.starts[number] : self.starts[number + 1]].tolist()
        return piece

    def to(self, device: str) -> "Row":
        return Row(self.ids.to(device), self.starts.to(device))

    def digest(self) -> str:
        """sha256 of tokens and borders."""
        made = hashlib.sha256(self.ids.cpu().numpy().astype("<i4").tobytes())
        made.update(self.starts.cpu().numpy().astype("<i8").tobytes())
        return made.hexdigest()


def pack(texts: Iterable[Ids]) -> Row:
    """Texts in their order, none cut, nothing between them."""
    pieces = [np.asarray(ids, np.int32) for ids in texts if len(ids)]
    starts = np.concatenate([[0], np.cumsum([len(ids) for ids in pieces], dtype=np.int64)])
    row = np.concatenate([np.zeros(0, np.int32), *pieces])
    return Row(torch.from_numpy(row), torch.from_numpy(starts.astype(np.int64)))


class Windows(NamedTuple):
    """Windows of a row.

    ``ids`` int64 (B, T + 1). For the first T tokens: ``segment`` int64 (B, T), counted from the window's start, at most
    S - 1, where what is beyond is gathered; ``place`` int64 (B, T), tokens since the segment's first one here.
    ``text`` int64 (B, S): the text that each segment is a part of.
    """

    ids: Tensor
    segment: Tensor
    place: Tensor
    text: Tensor


def begins(starts: NDArray[np.int64], context: int, at_text: float, batch: int, rng: np.random.Generator) -> Tensor:
    """Where windows of ``context`` + 1 tokens begin, int64 (B,): a share of them where a text does; ``starts`` as in
    ``Row``.
    """
    last = int(starts[-1]) - context - 1
    fits = int(np.searchsorted(starts[:-1], last, "right"))
    anywhere, first = rng.integers(0, last + 1, batch), starts[rng.integers(0, fits, batch)]
    return torch.from_numpy(np.where(rng.random(batch) < at_text, first, anywhere).astype(np.int64))


def cut(row: Row, begin: Tensor, context: int, segments: int) -> Windows:
    """The windows that start at ``begin`` (B,); of a text that began before, the part from there on."""
    at = begin[:, None] + torch.arange(context + 1, device=begin.device)
    here = at[:, :-1].contiguous()
    text = torch.searchsorted(row.starts, here, right=True) - 1
    place = here - torch.maximum(row.starts[text], begin[:, None])
    segment = (text - text[:, :1]).clamp_max(segments - 1)
    numbers = text[:, :1] + torch.arange(segments, device=begin.device)
    return Windows(row.ids[at].long(), segment, place, numbers.clamp_max(row.texts - 1))
