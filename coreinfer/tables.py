"""The artifact's Parquet tables: their columns, for writers and readers, and how to read them without trust.

``neurons.parquet`` is large, so its rows are read by row group when they are needed. The artifact is verified before
that; whether the file is still the one that was verified is looked at by each read.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.manifest import Manifest

GLOBAL = -1  # the cluster id of the global prior
MOST_VALUES = 1 << 28  # refuse a row group that claims more than this: a small file can expand without bound

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


class Stamp(NamedTuple):
    """What changes when a file is replaced or written to."""

    inode: int
    modified_ns: int
    size: int

    @classmethod
    def of(cls, facts: os.stat_result) -> "Stamp":
        return cls(facts.st_ino, facts.st_mtime_ns, facts.st_size)


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


def read_table(path: Path, schema: pa.Schema) -> Any:
    """A table of one row group that has these columns."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        return _group(file, path.name, schema, 1, 0)


def _group(file: Any, name: str, schema: pa.Schema, groups: int, group: int) -> Any:
    """A row group of a file with these columns and so many row groups. Its claims are looked at before it is."""
    if file.num_row_groups != groups or not file.schema_arrow.equals(schema):
        raise ValueError(f"{name} has {file.num_row_groups} row groups of {', '.join(file.schema_arrow.names)}")
    facts = file.metadata.row_group(group)
    columns = [facts.column(i) for i in range(facts.num_columns)]
    if (claim := max(facts.total_byte_size // 8, *(c.num_values for c in columns))) > MOST_VALUES:
        raise ValueError(f"{name} claims {claim} values")
    return file.read_row_group(group)


def read_rows(stored: Stored, cluster: int) -> Any:
    """The rows of a cluster: row group 0 is the global prior, row group c + 1 is cluster c."""
    if not GLOBAL <= cluster < stored.clusters:
        raise CoreInferError(
            f"there is no cluster {cluster}: give {GLOBAL} (the global prior) to {stored.clusters - 1}"
        )
    with stored.path.open("rb") as handle:  # one handle: what is looked at is what is read
        if Stamp.of(os.fstat(handle.fileno())) != stored.stamp:
            raise CoreInferError(f"{stored.path} was replaced after it was opened: load the artifact again")
        with pq.ParquetFile(handle, page_checksum_verification=True) as file:
            rows = _group(file, stored.path.name, neurons_schema(stored.width), stored.clusters + 1, cluster + 1)
    order = [(cluster, layer) for layer in range(stored.layers)]
    if list(zip(rows.column("cluster").to_pylist(), rows.column("layer").to_pylist(), strict=True)) != order:
        raise ValueError(f"{stored.path.name} has other rows where those of cluster {cluster} belong")
    return rows


def check_neurons(path: Path, manifest: Manifest) -> None:
    """One row group for each cluster and the global prior, a row a layer, ``width`` numbers a row."""
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow
        rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    if not columns.equals(neurons_schema(manifest.width)):
        raise ValueError(f"{path.name} has the columns {columns.names}, or not {manifest.width} float32 a row")
    if len(rows) != manifest.clusters + 1 or set(rows) != {manifest.layers}:
        wanted = f"{manifest.clusters + 1} row groups of {manifest.layers} layers"
        raise ValueError(f"{path.name} has {len(rows)} row groups of {sorted(set(rows))} rows, not {wanted}")
