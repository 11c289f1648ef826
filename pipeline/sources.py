"""A dataset becomes passages, streamed: files, a folder, a glob or a Hugging Face dataset, in flat memory.

It knows no model: ``count_tokens`` (n texts -> n counts) says how long texts are. A *row* is a dict of columns, or the
raw bytes of a record that is not UTF-8; a *span* is (start, end) in a text, or in a list of spans.
"""

import csv
import glob
import gzip
import io
import json
import os
import re
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, groupby, islice, pairwise
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from coreinfer.errors import CoreInferError

CountTokens = Callable[[list[str]], list[int]]
Row = dict[str, object] | bytes
Rows = Iterator[tuple[int, Row]]
Span = tuple[int, int]

BATCH = 64  # texts in a call of count_tokens; rows looked at to find the text column
LARGEST_FIELD = 1 << 27  # characters; an unclosed quote must not read a whole corpus into one CSV field
LONGEST_PARAGRAPH = 1000  # lines; a .txt without blank lines must stream too
CHARS_PER_TOKEN = 64  # longer texts are cut before they are counted, and joined again should they fit
TEXT_COLUMNS = ("text", "content", "document", "passage", "prompt", "body")
STRING_TYPES = ("string", "large_string", "dictionary<values=string")  # how Arrow's and the Hub's type names start
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SURROGATE = re.compile(r"[\ud800-\udfff]")
# After . ! ? with closing quotes and whitespace, after CJK stops, after a blank line. The quantifiers are possessive: a
# page of brackets must not cost quadratic time.
SENTENCE_END = re.compile(
    r"(?<=[.!?\u2026])[\"'\u2019\u201d\xbb)\]]*+\s++|[\u3002\uff01\uff1f]++[\u2019\u201d\u300d\u300f]*+\s*+|\n[^\S\n]*+\n\s*+"
)


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
        if self.max_tokens < 1 or (self.limit is not None and self.limit < 1):
            raise CoreInferError(f"limit is {self.limit} and max tokens {self.max_tokens}: give at least 1 for each")


@dataclass
class Counts:
    """Records read, passages yielded, records dropped by reason, and texts split, so far."""

    records: int = 0
    passages: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    split: int = 0

    def sentence(self) -> str:
        """All of it in one line."""
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(self.dropped.items())) or "none"
        return (
            f"{self.records:,} records read, {self.passages:,} passages, {self.split:,} texts split, dropped: {reasons}"
        )


@dataclass(frozen=True)
class Passage:
    """A text of at most ``max_tokens``; ``source`` is name:line for text files, name:row for Parquet and the Hub."""

    id: int
    text: str
    source: str


def read_passages(settings: SourceSettings, count_tokens: CountTokens, counts: Counts) -> Iterator[Passage]:
    """Yield the dataset's passages, ids from 0, and keep ``counts`` up to date.

    Raises CoreInferError if the dataset is missing, malformed, ambiguous or, at its end, without a passage.
    """
    number = -1
    for number, (source, text) in enumerate(islice(_pieces(settings, count_tokens, counts), settings.limit)):
        counts.passages += 1
        yield Passage(number, text, source)
    if number < 0:
        hint = f"check its text column and encoding (UTF-8), or lower min chars from {settings.min_chars}"
        raise CoreInferError(f"{settings.dataset!r} has no usable text ({counts.sentence()}): {hint}")


def _pieces(settings: SourceSettings, count_tokens: CountTokens, counts: Counts) -> Iterator[tuple[str, str]]:
    """(source, piece) of each text, lengths counted by the batch."""
    texts, most = _texts(settings, counts), settings.max_tokens
    while batch := list(islice(texts, min(BATCH, settings.limit or BATCH))):
        for (source, text), size in zip(batch, _sizes([text for _, text in batch], most, count_tokens), strict=True):
            pieces = split_text(text, most, count_tokens) if size > most else [text]
            counts.split += len(pieces) > 1
            yield from ((source, piece) for piece in pieces)


def _sizes(texts: list[str], most: int, count_tokens: CountTokens) -> list[int]:
    """Tokens of each text, stripped; ``most`` + 1 for what is too long to be worth tokenizing."""
    longest = most * CHARS_PER_TOKEN
    sizes = count_tokens([text[:longest].strip() for text in texts])
    return [size if len(text) <= longest else most + 1 for text, size in zip(texts, sizes, strict=True)]


def split_text(text: str, most: int, count_tokens: CountTokens) -> list[str]:
    """Cut into the fewest pieces of at most ``most`` tokens, about equally long; only whitespace at cuts is lost.

    Raises CoreInferError when a single character takes more tokens than that.
    """
    units, sizes = _units(text, most, count_tokens)
    groups = list(pairwise(_even_cuts(sizes, most)))
    while True:
        pieces = [text[units[a][0] : units[b - 1][1]].strip() for a, b in groups]
        sizes = count_tokens(pieces)
        if max(sizes) <= most:
            return [piece for piece in pieces if piece]
        # Tokens need not add up: units that fit one by one can be too many together, so halve those groups.
        cut = [[a, (a + b) // 2, b] if size > most else [a, b] for (a, b), size in zip(groups, sizes, strict=True)]
        groups = [half for edges in cut for half in pairwise(edges)]


def _units(text: str, most: int, count_tokens: CountTokens) -> tuple[list[Span], list[int]]:
    """Sentences, those above ``most`` tokens halved until they fit -> their u spans and u sizes."""
    spans = list(pairwise([0, *(end.end() for end in SENTENCE_END.finditer(text, 0, len(text.rstrip()))), len(text)]))
    known: dict[Span, int] = {}
    while True:
        fresh = [span for span in spans if span not in known]
        known.update(zip(fresh, _sizes([text[a:b] for a, b in fresh], most, count_tokens), strict=True))
        if all(known[span] <= most for span in spans):
            return spans, [known[span] for span in spans]
        spans = [part for span in spans for part in (_halves(text, span, most) if known[span] > most else [span])]


def _halves(text: str, span: Span, most: int) -> list[Span]:
    """Cut at the whitespace nearest the middle; in the middle of a single word."""
    a, b = span
    if b - a < 2:
        raise CoreInferError(
            f"max tokens is {most}, but the character {text[a:b]!r} alone takes more: give a larger one"
        )
    middle = (a + b) // 2
    gaps = (gap.start() for gap in re.finditer(r"\s+", text[a:b]) if gap.start() > 0)
    cut = a + min(gaps, key=lambda gap: abs(a + gap - middle), default=middle - a)
    return [(a, cut), (cut, b)]


def _even_cuts(sizes: list[int], most: int) -> list[int]:
    """Unit sizes (u,) -> the edges 0 ... u of the fewest groups of at most ``most`` each, as even as can be."""
    sums = [0, *accumulate(sizes)]
    earliest = [len(sizes)]  # packed greedily from the end: no group can start before this and leave the rest a fit
    while earliest[-1] > 0:
        earliest.append(bisect_left(sums, sums[earliest[-1]] - most))
    earliest.reverse()
    cuts = [0]
    for group in range(1, len(earliest) - 1):
        ideal = sums[-1] * group / (len(earliest) - 1)
        after = bisect_left(sums, ideal)
        nearest = after if sums[after] - ideal < ideal - sums[after - 1] else after - 1
        furthest = bisect_right(sums, sums[cuts[-1]] + most) - 1
        cuts.append(min(max(nearest, earliest[group]), furthest))
    return [*cuts, len(sizes)]


def _texts(settings: SourceSettings, counts: Counts) -> Iterator[tuple[str, str]]:
    """(source, stripped text) of each usable record; the others are counted by their fault."""
    for source, value in _values(settings):
        counts.records += 1
        text = value.strip() if isinstance(value, str) else ""
        if fault := _fault(value, text, settings.min_chars):
            counts.dropped[fault] = counts.dropped.get(fault, 0) + 1
        else:
            yield source, text


def _fault(value: object, text: str, min_chars: int) -> str:
    """Why a column's value, ``text`` when stripped, is no use; "" if it is."""
    # A lone surrogate (JSON's "\ud83d") is no character: tokenizers and Parquet refuse it.
    if value is None or isinstance(value, bytes) or SURROGATE.search(text):
        return "null" if value is None else "undecodable"
    if not isinstance(value, str) or not text:
        return "empty" if isinstance(value, str) else "not text"
    return "too short" if len(text) < min_chars else ""


def _values(settings: SourceSettings) -> Iterator[tuple[str, object]]:
    """(source, value of the text column) of each record of all files, or of the Hub's dataset."""
    files = _local_files(settings.dataset)
    if files is None:
        yield from _column(_hub_rows(settings), settings, settings.dataset)
        return
    if given := settings.split or settings.config:
        raise CoreInferError(f"{settings.dataset!r} is local, {given!r} is for the Hub: leave out --split and --config")
    base = os.path.commonpath([file.parent for file in files])
    for file in files:
        name = file.relative_to(base).as_posix()
        try:
            yield from _column(READERS[_suffix(file)](file, name, settings), settings, name)
        except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
            raise CoreInferError(f"{str(file)!r} cannot be read ({_brief(error)}): replace or remove it") from error


def _column(rows: Rows, settings: SourceSettings, name: str) -> Iterator[tuple[str, object]]:
    """(source, the text column's value) of each row; the first batch with readable rows decides on the column."""
    column = ""
    while head := list(islice(rows, 1 if column else BATCH)):
        readable = [row for _, row in head if isinstance(row, dict) and row]
        if readable and not column:
            column = _pick(*_string_columns(readable), settings, name)
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


def _pick(strings: list[str], columns: list[str], settings: SourceSettings, name: str) -> str:
    """The text column: the named one; else "text", the only string column, or the only one with a usual name."""
    listed = ", ".join(map(repr, columns)) or "none"
    if settings.text_column is not None:
        if settings.text_column in columns:
            return settings.text_column
        wrong = f"no column {settings.text_column!r} among {listed}"
        raise CoreInferError(f"{name!r} has {wrong}: pass the right one to --text-column")
    usual = [column for column in TEXT_COLUMNS if column in strings]
    for choice in (["text"] if "text" in usual else [], strings, usual):
        if len(choice) == 1:
            return choice[0]
    raise CoreInferError(f"{name!r} has no obvious text column among {listed}: pass the right one to --text-column")


def _local_files(dataset: str) -> list[Path] | None:
    """The supported files that a path, folder or glob means, sorted; None for what can only be a Hub name."""
    path = Path(dataset).expanduser()
    found = [path] if path.exists() else [Path(match) for match in glob.glob(str(path), recursive=True)]
    if not found and HUB_NAME.fullmatch(dataset) and _suffix(path) not in READERS:
        return None
    if not found:
        raise CoreInferError(
            f"no such file or folder: {dataset!r}: check the path, or give a Hub name such as 'me/data'"
        )
    files = sorted({file for each in found for file in (_inside(each) if each.is_dir() else [each])})
    if not (files := [file for file in files if _suffix(file) in READERS]):
        raise CoreInferError(
            f"{dataset!r} has no file of a known kind: give {', '.join(READERS)} (text kinds also .gz)"
        )
    return files


def _inside(folder: Path) -> list[Path]:
    """The files below, without hidden ones and those in hidden folders."""
    files = (file for file in folder.rglob("*") if file.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _hub_rows(settings: SourceSettings) -> Rows:
    """Stream a Hugging Face dataset; any failure of the library or the network becomes one line."""
    import datasets  # slow, and files do not need it

    try:
        data = datasets.load_dataset(settings.dataset, settings.config, split=settings.split, streaming=True)
        if isinstance(data, dict):  # all splits
            if "train" not in data and len(data) > 1:
                raise CoreInferError(f"{settings.dataset!r} has the splits {', '.join(data)}: pass one to --split")
            data = data.get("train") or next(iter(data.values()))
        if data.features:  # some streams do not know theirs; with them, only one column is fetched
            strings = [name for name, kind in data.features.items() if _is_string(getattr(kind, "dtype", ""))]
            data = data.select_columns([_pick(strings, list(data.features), settings, settings.dataset)])
        yield from enumerate(data, 1)
    except CoreInferError:
        raise
    except Exception as error:  # of many packages: the library lets them through
        asked = f"config {settings.config!r}, split {settings.split!r}: {_brief(error)}"
        hint = "check the name, --config, --split and the network, or give a file"
        raise CoreInferError(
            f"{settings.dataset!r} is no file, and the Hub gave no dataset ({asked}): {hint}"
        ) from error


def _json_rows(path: Path, name: str, _: SourceSettings) -> Rows:
    """One object a line; blank lines are skipped."""
    with _open(path) as lines:
        for number, line in enumerate(lines, 1):
            try:
                if text := _decoded(line.strip()):
                    yield number, text if isinstance(text, bytes) else _json_object(text)
            except (ValueError, RecursionError) as error:
                raise CoreInferError(
                    f"{name}:{number} is bad JSON ({_brief(error)}): write one object a line"
                ) from error


def _json_object(text: str) -> Row:
    row = json.loads(text)
    if not isinstance(row, dict):
        raise ValueError(f"a {type(row).__name__}, no object")
    return row


def _csv_rows(path: Path, name: str, _: SourceSettings) -> Rows:
    """Rows under a header, each at the line where it starts; wrong quoting or another number of fields is refused."""
    csv.field_size_limit(LARGEST_FIELD)
    # Bytes that are not UTF-8 pass the parser as surrogates, and so spoil their own row only.
    with io.TextIOWrapper(_open(path), "utf-8-sig", "surrogateescape", newline="") as lines:
        table = csv.reader(lines, delimiter="\t" if _suffix(path) == ".tsv" else ",", strict=True)
        header: list[str] = []
        start = 1
        try:
            for fields in filter(None, table):
                whole = "".join(fields)
                if header and SURROGATE.search(whole):
                    yield start, whole.encode(errors="surrogateescape")
                elif header:
                    yield start, dict(zip(header, fields, strict=True))
                header = header or fields
                start = table.line_num + 1
        except (csv.Error, ValueError) as error:
            raise CoreInferError(
                f"{name}:{start} is bad CSV ({_brief(error)}): quote its fields, or use .jsonl"
            ) from error


def _txt_rows(path: Path, _name: str, _: SourceSettings) -> Rows:
    """Paragraphs between blank lines, each at its first line."""
    with _open(path) as lines:
        for blank, group in groupby(enumerate(lines, 1), lambda line: not line[1].strip()):
            while not blank and (block := list(islice(group, LONGEST_PARAGRAPH))):
                yield block[0][0], {"text": _decoded(b"".join(line for _, line in block))}


def _parquet_rows(path: Path, name: str, settings: SourceSettings) -> Rows:
    """The text column alone; strings as bytes, because Parquet does not promise that they are UTF-8."""
    with pq.ParquetFile(path) as file:
        strings = [each.name for each in file.schema_arrow if _is_string(str(each.type))]
        column = _pick(strings, file.schema_arrow.names, settings, name)
        batches = (batch.column(0) for batch in file.iter_batches(BATCH, columns=[column]))
        raw = (values.cast(pa.large_binary()) if column in strings else values for values in batches)
        for number, value in enumerate((value for values in raw for value in values.to_pylist()), 1):
            yield number, {column: _decoded(value) if isinstance(value, bytes) else value}


def _is_string(kind: str) -> bool:
    return kind.startswith(STRING_TYPES)


def _decoded(raw: bytes) -> str | bytes:
    """UTF-8 -> text; anything else stays as it is."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path)) if path.suffix.lower() == ".gz" else path.open("rb")


def _suffix(path: Path) -> str:
    """The kind of file, a final .gz aside; Parquet compresses itself, so there .gz is no known kind."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if not name.endswith(".parquet.gz") else ".gz"


def _brief(error: BaseException) -> str:
    """An error of another package in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


READERS: dict[str, Callable[[Path, str, SourceSettings], Rows]]
READERS = dict.fromkeys((".jsonl", ".ndjson", ".json"), _json_rows)
READERS |= {".csv": _csv_rows, ".tsv": _csv_rows, ".txt": _txt_rows, ".parquet": _parquet_rows}
