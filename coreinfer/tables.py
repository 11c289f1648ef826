"""The artifact's Parquet tables: their columns, for writers and readers, and how to read them without trust.

``neurons.parquet`` is large, so its rows are read by row group when they are needed. The artifact is verified before
that; whether the file is still the one that was verified is looked at by each read.

Right hashes say nothing about a writer who lies, and a few bytes of Parquet can claim billions of values. So every
claim, of the footer and of each page, is held against what the manifest explains, before room is made for it.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.own_files import Content, Stamp
from coreinfer.pages import Chunk, Group, expanded, groups_of, pages_of, values_of

GLOBAL = -1  # the cluster id of the global prior
MOST_VALUES = 1 << 26  # of a column of a row group; more than 32,768 clusters of 2,048 dimensions
MOST_WORDS, MOST_LETTERS = 1 << 20, 1 << 25  # of all terms, or of all examples, together; in bytes
ROOM = 1 << 20  # bytes of a column's pages beside the values themselves

INT, LONG, FLOAT, WORDS = pa.int32(), pa.int64(), pa.float32(), pa.list_(pa.string())
LAYERS = pa.schema([("keep", pa.float64()), ("layer", INT), ("budget", LONG)])


def clusters_schema(dimension: int) -> pa.Schema:
    """The columns of ``clusters.parquet``."""
    return pa.schema([
        ("cluster", INT), ("size", LONG), ("tokens", LONG), ("centroid", pa.list_(FLOAT, dimension)),
        ("similarity_quantiles", pa.list_(FLOAT, 5)), ("terms", WORDS), ("examples", WORDS),
    ])  # fmt: skip


def neurons_schema(width: int) -> pa.Schema:
    """The columns of ``neurons.parquet``."""
    return pa.schema([("cluster", INT), ("layer", INT), ("statistic", pa.list_(FLOAT, width)), ("core", pa.binary())])


def sensitivity_schema(width: int) -> pa.Schema:
    """The columns of ``sensitivity.parquet``."""
    return pa.schema([("layer", INT), ("weight", pa.list_(FLOAT, width))])


class Stored(NamedTuple):
    """``neurons.parquet`` as it was verified: what decides the numbers read from it, so that they can be kept."""

    path: Path
    sha256: str
    stamp: Stamp
    clusters: int
    layers: int
    width: int


def matrix(table: Any, name: str, rows: int) -> NDArray[np.float32]:
    """A column of lists of one length as (rows, length)."""
    values: NDArray[np.float32] = numbers(table.column(name).combine_chunks().flatten())
    return values.reshape(rows, table.schema.field(name).type.list_size)


def numbers(values: Any) -> NDArray[Any]:
    """An Arrow array of numbers, none of them missing. By DLPack: for ``np.asarray``, Arrow would import pandas."""
    return np.from_dlpack(values)


def words(table: Any, name: str) -> list[list[str]]:
    """A column of lists of texts, which ``read_table`` left encoded: a text that stands there often is there once.

    Raises:
        ValueError: cells are empty, or all texts together are too long.
    """
    column = table.column(name).combine_chunks()
    values = column.flatten()
    lengths = np.array([len(one.encode()) for one in values.dictionary.to_pylist()], np.int64)
    if column.null_count or values.null_count:
        raise ValueError(f"{name} has empty cells")
    if len(values) > MOST_WORDS or lengths[numbers(values.indices)].sum() > MOST_LETTERS:
        raise ValueError(f"{name} holds {len(values)} texts, too many or too long")
    return [list(row) for row in column.to_pylist()]


@contextmanager
def _opened(handle: BinaryIO, schema: pa.Schema, most_groups: int) -> Iterator[Any]:
    """A file whose footer was looked at, parsed within limits; columns of texts stay encoded.

    Of the footer, PyArrow is asked nothing but the schema: showing others of its fields, it ends the process where they
    are none that it knows.
    """
    encoded = [f"{field.name}.list.element" for field in schema if field.type == WORDS]
    with pq.ParquetFile(
        handle, page_checksum_verification=True, read_dictionary=encoded or None, pre_buffer=False,
        thrift_string_size_limit=1 << 22, thrift_container_size_limit=max(1024, most_groups + 1),
    ) as file:  # fmt: skip
        yield file


def read_table(content: Content, schema: pa.Schema, rows: int | range) -> Any:
    """A table of one row group that has these columns and so many rows.

    Raises:
        ValueError, pyarrow.ArrowException: it is no such table, or claims more than that explains.
    """
    groups = groups_of(handle := BytesIO(content.raw), 1)
    if groups[0].rows not in (rows if isinstance(rows, range) else (rows,)):
        raise ValueError(f"{content.name} has {groups[0].rows} rows where {rows} belong")
    return _group(handle, content.name, schema, groups, 0)


def _group(handle: BinaryIO, name: str, schema: pa.Schema, groups: tuple[Group, ...], number: int) -> Any:
    """A row group of a file with these columns. Its claims are looked at before it is."""
    found = groups[number]
    for chunk, field in zip(found.chunks, schema, strict=True):
        _check_column(handle, chunk, name, field, found.rows)
    handle.seek(0)
    with _opened(handle, schema, len(groups)) as file:
        if not file.schema_arrow.equals(_encoded(schema)):
            raise ValueError(f"{name} has the columns {', '.join(file.schema_arrow.names)}"[:300])
        table = file.read_row_group(number, use_threads=False)
    table.validate(full=True)  # offsets, indices and UTF-8 come from the file as they are
    if len(table) != found.rows:
        raise ValueError(f"{name} has {len(table)} rows where {found.rows} belong")
    return table


def _encoded(schema: pa.Schema) -> pa.Schema:
    """The columns as ``_opened`` gives them."""
    texts = pa.list_(pa.dictionary(INT, pa.string()))
    return pa.schema([(field.name, texts if field.type == WORDS else field.type) for field in schema])


def _check_column(handle: BinaryIO, chunk: Chunk, name: str, field: pa.Field, rows: int) -> None:
    """Refuse a column chunk that claims, or whose pages claim, other values than the rows explain."""
    each = field.type.list_size if pa.types.is_fixed_size_list(field.type) else 1
    most = max(rows, MOST_WORDS) if field.type == WORDS else rows * each
    if not rows * each <= (claim := chunk.values) <= min(most, MOST_VALUES):
        raise ValueError(f"{name} claims {claim} values of {field.name} in {rows} rows")
    pages = pages_of(handle, chunk)
    if values_of(pages) != claim:
        raise ValueError(f"{name} has pages of {field.name} that claim other than {claim} values")
    size = expanded(pages, claim if pa.types.is_binary(field.type) else 0)
    if size > _most_bytes(field, claim):
        raise ValueError(f"{name} claims {size} bytes of {field.name}")


def _most_bytes(field: pa.Field, values: int) -> int:
    """What the pages of a column may take: the values, what says where lists begin, and some room."""
    if field.type == WORDS:
        return 2 * MOST_LETTERS
    return ROOM + (MOST_LETTERS if pa.types.is_binary(field.type) else 16 * values)


@contextmanager
def _as_verified(stored: Stored) -> Iterator[BinaryIO]:
    """The file, by one handle: what is looked at is what is read."""
    with stored.path.open("rb") as handle:
        if Stamp.of(os.fstat(handle.fileno())) != stored.stamp:
            raise CoreInferError(f"{stored.path} was replaced after it was opened: load the artifact again")
        yield handle


def read_rows(stored: Stored, cluster: int) -> Any:
    """The rows of a cluster: row group 0 is the global prior, row group c + 1 is cluster c."""
    if not GLOBAL <= cluster < stored.clusters:
        raise CoreInferError(
            f"there is no cluster {cluster}: give {GLOBAL} (the global prior) to {stored.clusters - 1}"
        )
    with _as_verified(stored) as handle:
        rows = _group(handle, stored.path.name, neurons_schema(stored.width), _groups(stored, handle), cluster + 1)
    order = [(cluster, layer) for layer in range(stored.layers)]
    if list(zip(rows.column("cluster").to_pylist(), rows.column("layer").to_pylist(), strict=True)) != order:
        raise ValueError(f"{stored.path.name} has other rows where those of cluster {cluster} belong")
    return rows


_FOOTERS: dict[Stored, tuple[Group, ...]] = {}  # of the last file only: many clusters are read of one


def _groups(stored: Stored, handle: BinaryIO) -> tuple[Group, ...]:
    """The footer of ``neurons.parquet``: a row group a cluster and one of the global prior, a row a layer."""
    found = _FOOTERS.get(stored)
    if found is None:
        found = groups_of(handle, stored.clusters + 1)
        if (rows := {group.rows for group in found}) != {stored.layers}:
            raise ValueError(f"{stored.path.name} has row groups of {sorted(rows)[:8]} rows, not {stored.layers}")
        _FOOTERS.clear()
        _FOOTERS[stored] = found
    return found


def check_neurons(stored: Stored) -> None:
    """One row group for each cluster and the global prior, a row a layer, ``width`` numbers a row.

    Raises:
        ValueError, LookupError, pyarrow.ArrowException: it is no such file.
    """
    schema = neurons_schema(stored.width)
    with _as_verified(stored) as handle:
        groups = _groups(stored, handle)
        handle.seek(0)
        with _opened(handle, schema, len(groups)) as file:
            columns = file.schema_arrow
    if not columns.equals(schema):
        raise ValueError(f"it has the columns {columns.names}, or not {stored.width} float32 a row"[:300])
