"""Texts to evaluate on, from anything that build-clusters reads, and their domains where a column names them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from coreinfer.errors import CoreInferError
from coreinfer.evaluate.plan import FEWEST, Plan, Text, check_enough, cut
from coreinfer.progress import Tick
from coreinfer.settings import at_least
from pipeline.passages import Passage
from pipeline.readers import file_rows, hub_rows, local_files
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.unreadable import Row

BATCH = 64  # texts tokenized together
STRETCH = 16  # batches between two ticks: a dataset that is soon read needs no progress
DOMAIN_COLUMNS = ("domain", "topic", "category", "subset")
WHOLE = 1 << 30  # tokens of a passage: texts are not split
T = TypeVar("T")


@dataclass(frozen=True)
class Found:
    """The texts to measure on, and how many of those ``seen`` are too ``short`` for it."""

    texts: list[Text]
    seen: int
    short: int


def read_texts(
    source: SourceSettings, plan: Plan, tokenizer: Any, limit: int | None = None, domain_column: str | None = None,
    tick: Tick = lambda n: None,
) -> Found:  # fmt: skip
    """The texts that are long enough; ``limit`` of them, evenly over the whole dataset. Of ``source``,
    limits and sizes are unused.

    Raises:
        CoreInferError: an unusable dataset, fewer than two texts long enough, or no such domain column.
    """
    if limit is not None:
        at_least("--limit", limit, FEWEST)
    found = long_texts(source, tokenizer, plan.length, plan.length, limit, tick)
    check_enough(len(found.texts), found.seen, plan, repr(source.dataset))
    domains = _domains(source, {text.name for text in found.texts}, domain_column)
    return replace(found, texts=[replace(text, domain=domains.get(text.name)) for text in found.texts])


def long_texts(
    source: SourceSettings, tokenizer: Any, least: int, most: int, limit: int | None, tick: Tick = lambda n: None
) -> Found:
    """The texts of at least ``least`` tokens, the first ``most`` of each; ``limit`` of them, evenly over all of it."""
    counts, short = Counts(), [0]
    passages = _whole(replace(source, limit=None, min_chars=0), counts)

    def long_enough() -> Iterator[Text]:
        for number in count(1):
            if not (batch := list(islice(passages, BATCH))):
                return
            if number % STRETCH == 0:
                tick(STRETCH * BATCH)
            rows = cut(tokenizer, [passage.text for passage in batch], least, most)
            short[0] += sum(row is None for row in rows)
            yield from (Text(p.source, row) for p, row in zip(batch, rows, strict=True) if row is not None)

    return Found(evenly(long_enough(), limit), counts.passages, short[0])


def _whole(source: SourceSettings, counts: Counts) -> Iterator[Passage]:
    """A dataset's texts, none of them split, so that there is no need to count their tokens."""
    return read_passages(replace(source, max_tokens=WHOLE), lambda batch: [1] * len(batch), counts)


def evenly(texts: Iterable[T], limit: int | None) -> list[T]:
    """``limit`` of a stream of unknown length, evenly over all of it; what is held on the way is thinned out."""
    if limit is None:
        return list(texts)
    kept, step, room = list[T](), 1, max(16 * limit, 4096)
    for i, text in enumerate(texts):
        if i % step == 0:
            kept.append(text)
        if len(kept) > room:
            kept, step = kept[::2], step * 2
    picks = np.linspace(0, len(kept) - 1, min(limit, len(kept))).round().astype(int)
    return [kept[i] for i in picks]


def _domains(source: SourceSettings, names: set[str], wanted: str | None) -> dict[str, str]:
    """The domains of these texts; none where no column names them. The dataset is read once more for it."""
    domains = dict[str, str]()
    for name, row, column in _named_rows(source, (wanted,) if wanted else DOMAIN_COLUMNS):
        if name in names and isinstance(row, dict) and row.get(column) not in (None, ""):
            domains[name] = str(row[column])
    if wanted and not domains:
        raise CoreInferError(
            f"{source.dataset!r} names no domain in a column {wanted!r}: pass the right one to --domain-column"
        )
    return domains


def _named_rows(source: SourceSettings, candidates: tuple[str, ...]) -> Iterator[tuple[str, Row, str]]:
    """(name of the text, row, domain column) of each row of the files that have such a column."""

    def pick(_: list[str], columns: list[str], __: str) -> str:
        return next((name for name in candidates if name in columns), columns[0])

    files = local_files(source.dataset)
    if files is None:
        parts = [(source.dataset, hub_rows(source.dataset, source.config, source.split, pick))]
    else:
        base = Path(os.path.commonpath([file.parent for file in files]))
        named = ((file, file.relative_to(base).as_posix()) for file in files)
        parts = ((name, file_rows(file, name, pick)) for file, name in named)  # type: ignore[assignment]
    for name, rows in parts:
        column = ""
        for number, row in rows:
            if not column and isinstance(row, dict):
                column = next((c for c in candidates if c in row and c != source.text_column), "")
                if not column:
                    break  # the next file may have one
            yield f"{name}:{number}", row, column


def some_texts(dataset: str, text_column: str | None, most: int) -> list[str]:
    """The first ``most`` texts of a dataset, uncut.

    Raises:
        CoreInferError: an unusable dataset.
    """
    source = SourceSettings(dataset, text_column=text_column, limit=most)
    return [passage.text for passage in _whole(source, Counts())]
