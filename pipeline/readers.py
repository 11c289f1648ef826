"""Files of every kind, and datasets of the Hub, become rows, streamed.

A *row* is a dict of columns, or the raw bytes of a record that is not UTF-8; it comes with the number of its line or
its place. Where only one column is worth reading, ``pick`` (columns of strings, all columns, name -> a column) says
which.
"""

import csv
import glob
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq

from coreinfer.errors import CoreInferError, in_words
from coreinfer.hub import check_hub
from pipeline.unreadable import SEEN, Row, Rows, Unreadable, check_encoding

Pick = Callable[[list[str], list[str], str], str]

BATCH = 64  # rows of a Parquet file in memory
LARGEST_FIELD = 1 << 27  # characters; an unclosed quote must not read a whole corpus into one CSV field
LONGEST_PARAGRAPH = 1000  # lines; a .txt without blank lines must stream too
STRING_TYPES = ("string", "large_string", "dictionary<values=string")  # how Arrow's and the Hub's type names start
HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
SURROGATE = re.compile(r"[\ud800-\udfff]")
JSON_KINDS = {list: "an array", str: "a string", int: "a number", float: "a number", bool: "a truth value",
              type(None): "null"}  # fmt: skip


def check_dataset(dataset: str) -> None:
    """Refuse a dataset that is not there, before anything slow is done for it."""
    if local_files(dataset) is None:
        check_hub("dataset", dataset)


def local_files(dataset: str) -> list[Path] | None:
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


def file_rows(path: Path, name: str, pick: Pick) -> Rows:
    """The rows of a file, whose ``name`` is for messages; one that cannot be read is refused."""
    try:
        yield from READERS[_suffix(path)](path, name, pick)
    except (OSError, EOFError, zlib.error, pa.ArrowException) as error:
        raise Unreadable(f"{str(path)!r} cannot be read ({_brief(error)}): replace or remove it") from error


def unit_of(path: Path) -> str:
    """What the numbers of a file's rows count."""
    return "row" if _suffix(path) == ".parquet" else "line"


def hub_rows(dataset: str, config: str | None, split: str | None, pick: Pick) -> Rows:
    """Stream a Hugging Face dataset; any failure of the library or the network becomes one line."""
    check_hub("dataset", dataset)
    import datasets  # slow, and files do not need it

    try:
        data = datasets.load_dataset(dataset, config, split=split, streaming=True)
        if isinstance(data, dict):  # all splits
            if "train" not in data and len(data) > 1:
                raise CoreInferError(f"{dataset!r} has the splits {', '.join(data)}: pass one to --split")
            data = data.get("train") or next(iter(data.values()))
        if data.features:  # some streams do not know theirs; with them, only one column is fetched
            strings = [name for name, kind in data.features.items() if _is_string(getattr(kind, "dtype", ""))]
            data = data.select_columns([pick(strings, list(data.features), dataset)])
        yield from enumerate(data, 1)
    except CoreInferError:
        raise
    except Exception as error:  # of many packages: the library lets them through
        asked = f"config {config!r}, split {split!r}: {_brief(error)}"
        hint = "check the name, --config, --split and the network, or give a file"
        raise CoreInferError(f"{dataset!r} is no file, and the Hub gave no dataset ({asked}): {hint}") from error


def _json_rows(path: Path, name: str, _: Pick) -> Rows:
    """One object a line; blank lines are skipped."""
    with _opened(path, name) as lines:
        for number, line in enumerate(lines, 1):
            if text := _decoded(line.rstrip()):
                yield number, text if isinstance(text, bytes) else _json_object(text, f"{name}:{number}")


def _json_object(text: str, where: str) -> Row:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{where} is bad JSON ({_fault(error)}): write one object a line") from error
    if not isinstance(row, dict):
        raise Unreadable(f"{where} is {JSON_KINDS[type(row)]}, not an object: write one object a line")
    return row


def _fault(error: Exception) -> str:
    """JSON's own message, without its line number: that is always 1."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg.rstrip(': ').removesuffix(' at')} at column {error.colno}"
    return "nested too deeply" if isinstance(error, RecursionError) else in_words(error)


def _csv_rows(path: Path, name: str, _: Pick) -> Rows:
    """Rows under a header, each at the line where it starts; wrong quoting or another number of fields is refused."""
    csv.field_size_limit(LARGEST_FIELD)
    # Bytes that are not UTF-8 pass the parser as surrogates, and so spoil their own row only.
    with _opened(path, name) as raw, io.TextIOWrapper(raw, "utf-8-sig", "surrogateescape", newline="") as lines:
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
            raise Unreadable(f"{name}:{start} is bad CSV ({_brief(error)}): quote its fields, or use .jsonl") from error


def _txt_rows(path: Path, name: str, _: Pick) -> Rows:
    """Paragraphs between blank lines, each at its first line."""
    with _opened(path, name) as lines:
        for blank, group in groupby(enumerate(lines, 1), lambda line: not line[1].strip()):
            while not blank and (block := list(islice(group, LONGEST_PARAGRAPH))):
                yield block[0][0], {"text": _decoded(b"".join(line for _, line in block))}


def _parquet_rows(path: Path, name: str, pick: Pick) -> Rows:
    """The text column alone; strings as bytes, because Parquet does not promise that they are UTF-8."""
    with pq.ParquetFile(path) as file:
        strings = [each.name for each in file.schema_arrow if _is_string(str(each.type))]
        column = pick(strings, file.schema_arrow.names, name)
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


@contextmanager
def _opened(path: Path, name: str) -> Iterator[IO[bytes]]:
    """A file of text, whose first bytes do not say that it is none."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        check_encoding(file.peek(SEEN), name)
        yield cast(IO[bytes], file)


def _suffix(path: Path) -> str:
    """The kind of file, a final .gz aside; Parquet compresses itself, so there .gz is no known kind."""
    name = path.name.lower()
    return Path(name.removesuffix(".gz")).suffix if not name.endswith(".parquet.gz") else ".gz"


def _brief(error: BaseException) -> str:
    """An error of another package in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


READERS: dict[str, Callable[[Path, str, Pick], Rows]]
READERS = dict.fromkeys((".jsonl", ".ndjson", ".json"), _json_rows)
READERS |= {".csv": _csv_rows, ".tsv": _csv_rows, ".txt": _txt_rows, ".parquet": _parquet_rows}
