"""A dataset becomes passages, streamed: files, a folder, a glob or a Hugging Face dataset, in flat memory.

It knows no model: ``count_tokens`` (n texts -> n counts) says how long texts are.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from coreinfer.errors import CoreInferError
from coreinfer.hub import check_hub
from coreinfer.settings import at_least
from coreinfer.wording import counted
from pipeline.passages import Passage
from pipeline.readers import SURROGATE, file_rows, hub_rows, local_files, unit_of
from pipeline.splitting import CountTokens, bounded_sizes, split_text
from pipeline.unreadable import Rows, Unreadable, mostly_decoded

BATCH = 64  # texts in a call of count_tokens; rows looked at to find the text column
UNDECODABLE = "undecodable"
LISTED = 5  # files with undecodable records that are named
TEXT_COLUMNS = ("text", "content", "document", "passage", "prompt", "body")


@dataclass(frozen=True)
class SourceSettings:
    """Which texts to read; ``split`` and ``config`` are for the Hub, ``limit`` counts passages (None: all)."""

    dataset: str
    split: str | None = None
    config: str | None = None
    text_column: str | None = None
    limit: int | None = None
    max_tokens: int = 256
    min_chars: int = 20

    def __post_init__(self) -> None:
        if not self.dataset.strip():
            raise CoreInferError(f"the dataset is {self.dataset!r}: give a file, a folder, a glob or a Hub name")
        at_least("--passage-tokens", self.max_tokens, 1)
        at_least("--min-chars", self.min_chars, 0)
        if self.limit is not None:
            at_least("--limit", self.limit, 1)


@dataclass
class Counts:
    """What was read so far.

    Attributes:
        records, passages, split: records read, passages yielded, texts split.
        dropped: records dropped, by reason.
        undecodable: of those, by file, how many are undecodable, and the number of the first one's line or row.
        guessed: columns other than "text" that were taken for the texts, where no column was asked for.
        most_bad: files that may be unreadable, at most; None where no option says how many.
        bad_files: those that could not be read to their end, and why.
    """

    records: int = 0
    passages: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    split: int = 0
    undecodable: dict[str, tuple[int, int]] = field(default_factory=dict)
    guessed: list[str] = field(default_factory=list)
    most_bad: int | None = None
    bad_files: dict[str, str] = field(default_factory=dict)

    def drop(self, source: str, fault: str) -> None:
        """Count a record, at ``source``, that has this fault."""
        self.dropped[fault] = self.dropped.get(fault, 0) + 1
        if fault == UNDECODABLE:
            name, _, number = source.rpartition(":")
            many, first = self.undecodable.get(name, (0, int(number)))
            self.undecodable[name] = many + 1, first

    def skip(self, name: str, fault: Unreadable) -> None:
        """Go on without the rest of a file, unless too many have such a fault."""
        if self.most_bad is None:
            raise fault
        self.bad_files[name] = str(fault)
        if (many := len(self.bad_files)) > self.most_bad:
            raise Unreadable(
                f"{fault}, or add --max-bad-shards {many} to leave out what cannot be read of it"
            ) from fault

    def sentence(self) -> str:
        """All of it in one line."""
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.dropped.items())) or "none"
        made, split = counted(self.passages, "passage"), counted(self.split, "text")
        columns = f"; text column: {', '.join(self.guessed)}" if self.guessed else ""
        where = [f"{n:,} in {name} (the first at {first})" for name, (n, first) in self.undecodable.items()]
        spoilt = f"; undecodable: {_listed(where)}" if where else ""
        bad = f"; left out, whole or in part: {', '.join(self.bad_files)}" if self.bad_files else ""
        read = f"{counted(self.records, 'record')} read, {made}, {split} split, dropped: {reasons}"
        return f"{read}{columns}{spoilt}{bad}"


def check_source(settings: SourceSettings, most_bad: int | None = None) -> None:
    """Refuse a dataset before anything slow is done for it: files by what they begin with, one of the Hub if it is not
    there. ``most_bad``: files that may be unreadable, as ``Counts`` has it.

    Raises:
        CoreInferError: it is missing; or a file is malformed or ambiguous, or all of them hold no text.
    """
    if local_files(settings.dataset) is None:
        check_hub("dataset", settings.dataset)
    else:
        look_at(settings, most_bad)


def look_at(settings: SourceSettings, most_bad: int | None) -> None:
    """Read a dataset to its first passage.

    Raises:
        CoreInferError: as ``read_passages``.
    """
    next(read_passages(replace(settings, limit=1), lambda texts: [1] * len(texts), Counts(most_bad=most_bad)))


def read_passages(settings: SourceSettings, count_tokens: CountTokens, counts: Counts) -> Iterator[Passage]:
    """Yield the dataset's passages, ids from 0, and keep ``counts`` up to date.

    Raises CoreInferError if the dataset is missing, malformed, ambiguous or, at its end, without a passage.
    """
    number = -1
    for number, (source, text) in enumerate(islice(_pieces(settings, count_tokens, counts), settings.limit)):
        counts.passages += 1
        yield Passage(number, text, source)
    if not counts.records:
        raise CoreInferError(f"{settings.dataset!r} is empty: give one that holds texts")
    if number < 0:
        hint = f"check its text column and encoding (UTF-8), or lower --min-chars from {settings.min_chars}"
        raise CoreInferError(f"{settings.dataset!r} has no usable text ({counts.sentence()}): {hint}")


def _pieces(settings: SourceSettings, count_tokens: CountTokens, counts: Counts) -> Iterator[tuple[str, str]]:
    """(source, piece) of each usable text, lengths counted by the batch; a record counts when its turn comes."""
    records, most = _records(settings, counts), settings.max_tokens
    while batch := list(islice(records, min(BATCH, settings.limit or BATCH))):
        usable = [text for _, text, fault in batch if not fault]
        sizes = iter(bounded_sizes(usable, most, count_tokens) if usable else [])
        for source, text, fault in batch:
            counts.records += 1
            if fault:
                counts.drop(source, fault)
                continue
            pieces = split_text(text, most, count_tokens) if next(sizes) > most else [text]
            counts.split += len(pieces) > 1
            yield from ((source, piece) for piece in pieces)


def _records(settings: SourceSettings, counts: Counts) -> Iterator[tuple[str, str, str]]:
    """(source, stripped text, fault) of each record; the fault of a usable one is ""."""
    for source, value in _values(settings, counts):
        text = value.strip() if isinstance(value, str) else ""
        yield source, text, _fault(value, text, settings.min_chars)


def _fault(value: object, text: str, min_chars: int) -> str:
    """Why a column's value, ``text`` when stripped, is no use; "" if it is."""
    # A lone surrogate (JSON's "\ud83d") is no character: tokenizers and Parquet refuse it.
    if value is None or isinstance(value, bytes) or SURROGATE.search(text):
        return "null" if value is None else UNDECODABLE
    if not isinstance(value, str) or not text:
        return "empty" if isinstance(value, str) else "not text"
    return "too short" if len(text) < min_chars else ""


def _values(settings: SourceSettings, counts: Counts) -> Iterator[tuple[str, object]]:
    """(source, value of the text column) of each record of all files, or of the Hub's dataset."""
    files, pick = local_files(settings.dataset), partial(_pick, settings.text_column)
    if files is None:
        rows = hub_rows(settings.dataset, settings.config, settings.split, pick)
        yield from _column(rows, settings.text_column, settings.dataset, counts)
        return
    if given := settings.split or settings.config:
        raise CoreInferError(f"{settings.dataset!r} is local, {given!r} is for the Hub: leave out --split and --config")
    base = os.path.commonpath([file.parent for file in files])
    for file in files:
        name = file.relative_to(base).as_posix()
        try:
            rows = mostly_decoded(file_rows(file, name, pick), name, unit_of(file))
            yield from _column(rows, settings.text_column, name, counts)
        except Unreadable as fault:
            counts.skip(name, fault)


def _listed(files: list[str]) -> str:
    more = f", and in {counted(len(files) - LISTED, 'more file')}" if len(files) > LISTED else ""
    return ", ".join(files[:LISTED]) + more


def _column(rows: Rows, wanted: str | None, name: str, counts: Counts) -> Iterator[tuple[str, object]]:
    """(source, the text column's value) of each row; the first batch with readable rows decides on the column."""
    column = ""
    while head := list(islice(rows, 1 if column else BATCH)):
        readable = [row for _, row in head if isinstance(row, dict) and row]
        if readable and not column:
            strings, columns = _string_columns(readable)
            if wanted is None and not strings:
                held = ", ".join(f"{each!r} holds {_kind(each, readable)}" for each in columns)
                raise CoreInferError(f"{name!r} has no column of texts ({held}): write them as strings")
            column = _pick(wanted, strings, columns, name)
            if column not in (wanted, "text", *counts.guessed):
                counts.guessed.append(column)
        for number, row in head:
            yield f"{name}:{number}", row if isinstance(row, bytes) else row.get(column)


def _string_columns(rows: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Rows -> (columns that hold texts, all columns); numbers as strings, then nulls, count if nothing else does."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    values = {name: [row[name] for row in rows if row.get(name) not in (None, "")] for name in columns}
    strings = [name for name in columns if any(isinstance(value, str | bytes) for value in values[name])]
    worded = [name for name in strings if re.search(r"[^\W\d]", " ".join(map(str, values[name])))]
    nulls = [name for name in columns if not values[name]]
    return (["text"] if "text" in strings + nulls else worded or strings or nulls), columns


def _kind(column: str, rows: list[dict[str, object]]) -> str:
    """What the first value of a column is, in the plural."""
    value = next(row[column] for row in rows if row.get(column) is not None)
    kinds = {bool: "booleans", int: "integers", float: "numbers", list: "lists", dict: "objects"}
    return kinds.get(type(value), f"{type(value).__name__}s")


def _pick(wanted: str | None, strings: list[str], columns: list[str], name: str) -> str:
    """The text column: the ``wanted`` one; else "text", the only string column, or the only one with a usual name."""
    listed = ", ".join(map(repr, columns)) or "none"
    if wanted is not None:
        if wanted in columns:
            return wanted
        wrong = f"no column {wanted!r} among {listed}"
        raise CoreInferError(f"{name!r} has {wrong}: pass the right one to --text-column")
    usual = [column for column in TEXT_COLUMNS if column in strings]
    for choice in (["text"] if "text" in usual else [], strings, usual):
        if len(choice) == 1:
            return choice[0]
    fault = "no obvious text column" if strings else "no column of texts"
    raise CoreInferError(f"{name!r} has {fault} among {listed}: pass the right one to --text-column")
