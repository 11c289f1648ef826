"""Which passages are held out: whole records, and no text that the build sees too.

Passages cut from one record say the same things in the same words, so a record goes to one side with all of them. A
passage whose text is, letter for letter, that of a held-out one is left out of the build. Memory: 16 bytes a passage
while this runs.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.passages import read_windows

MOST = 512  # passages measured on: enough for a quantile and a choice, and a small part of any build's time
ENOUGH = 20  # passages; of fewer, none is held out
LARGEST_PART = 4  # holding out may cost the build one passage in so many; else less, or nothing, is held out


@dataclass(frozen=True)
class Split:
    """Passages by their index: ``held`` (h,) are measured on, ``kept`` (k,) are built from; sorted. ``duplicates`` of
    held-out ones, and further passages of held-out records, are on neither side.
    """

    held: NDArray[np.int64]
    kept: NDArray[np.int64]
    duplicates: int


def hold_out(passages: Path, seed: int) -> Split:
    """Split the corpus; about 2% of the passages are held out, at least 1 in 20 of a small corpus, at most ``MOST``."""
    return split(*_identities(passages), seed)


def held_out_of(count: int) -> int:
    """How many of so many passages are held out, or a few less."""
    return min(MOST, max(count // 50, min(count // ENOUGH, 32)))


def split(records: NDArray[np.int64], texts: NDArray[np.uint64], seed: int) -> Split:
    """The number of each passage's record and a hash of its text, (n,) each -> the two sides."""
    count, rng = len(records), np.random.default_rng(seed + 1)
    size = held_out_of(count)
    out = np.isin(records, _chosen(records, texts, size, rng))
    held = np.flatnonzero(out)
    if len(held) > size:  # the last record had more passages than were asked for
        held = np.sort(rng.choice(held, size, replace=False))
    barred = np.isin(texts, texts[out])
    return Split(held, np.flatnonzero(~barred), int((barred & ~out).sum()))


def _chosen(
    records: NDArray[np.int64], texts: NDArray[np.uint64], size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Random records with ``size`` passages together. One that would cost the build too much, as a record of half the
    corpus or a text that half of it repeats, is passed over.
    """
    _, same, copies = np.unique(texts, return_inverse=True, return_counts=True)
    costs, room = np.bincount(records, copies[same]), len(records) // LARGEST_PART
    order = rng.permutation(len(costs))
    order = order[costs[order] <= room]
    enough = int(np.searchsorted(np.bincount(records, minlength=len(costs))[order].cumsum(), size)) + 1
    order = order[: enough if size else 0]
    return order[costs[order].cumsum() <= room]


def _identities(passages: Path) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Each passage's record, counted from 0, and a 64-bit hash of its text, (n,) each."""
    records, texts, last, number = list[NDArray[np.int64]](), list[NDArray[np.uint64]](), "", -1
    for (_, window), (_, sources) in zip(read_windows(passages), read_windows(passages, "source"), strict=True):
        mine = np.empty(len(sources), np.int64)
        for i, source in enumerate(sources):
            number, last = number + (source != last), source
            mine[i] = number
        records.append(mine)
        hashes = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in window)
        texts.append(np.frombuffer(hashes, np.uint64))
    return np.concatenate(records), np.concatenate(texts)
