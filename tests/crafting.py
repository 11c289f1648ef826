"""Tools to make an artifact that misleads or harms, from a small good one: each is a change of its folder."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import thrift_trees as tt
from small_artifacts import POLICY, D, F, Fault, K, L, rewrite_manifest, table

CLUSTERS, NEURONS = "clusters.parquet", "neurons.parquet"


def text(name: str, content: str | bytes) -> Fault:
    return lambda root: (root / name).write_bytes(content.encode() if isinstance(content, str) else content)


def policy(**changes: Any) -> Fault:
    return text("calibration.json", json.dumps({"policy": {**asdict(POLICY), **changes}}))


def curve(**row: Any) -> Fault:
    rows = [{"keep": 0.4, "rise": 0.1, "rise_high": 0.2, **row}]
    return text("calibration.json", json.dumps({"policy": asdict(POLICY), "curve": rows}))


def said(**changes: Any) -> Fault:
    """Fields of the manifest."""
    return lambda root: rewrite_manifest(root, lambda m: m.update(changes))


def spelled(old: str, new: str | bytes) -> Fault:
    """The manifest's text."""

    def fault(root: Path) -> None:
        place, wanted = root / "manifest.json", new.encode() if isinstance(new, str) else new
        raw = place.read_bytes()
        assert old.encode() in raw
        place.write_bytes(raw.replace(old.encode(), wanted, 1))

    return fault


def footed(name: str, change: Callable[[tt.Tree], Any]) -> Fault:
    def fault(root: Path) -> None:
        body, foot = tt.footer(root / name)
        change(foot)
        tt.write(root / name, body, foot)

    return fault


def chunk(name: str, number: int, field: int, value: int, group: int = 0) -> Fault:
    """A field of the metadata of a column."""
    kind = tt.I32 if field == tt.CODEC else tt.I64
    return footed(name, lambda foot: tt.column(foot, group, number)[tt.META][1].update({field: (kind, value)}))


def paged(name: str, number: int, field: int, value: int | None, group: int = 0) -> Fault:
    """A field of the header of a column's first page; None: it is gone."""

    def change(header: tt.Tree) -> None:
        header.pop(field) if value is None else header.update({field: (tt.I32, value)})

    return lambda root: tt.with_page(root / name, group, number, change)


def headed(name: str, number: int, field: int, value: int, group: int = 0) -> Fault:
    """The same inside the header of a data page."""

    def change(header: tt.Tree) -> None:
        head = next(header[kind][1] for kind in (5, 8, 7) if kind in header)
        head[field] = (tt.I32, value)

    return lambda root: tt.with_page(root / name, group, number, change)


def first(name: str, column: str, change: Callable[[Any], Any]) -> Fault:
    """The first cell of a column."""

    def changed(old: Any) -> Any:
        at, field = old.schema.get_field_index(column), old.schema.field(column)
        values = old.column(column).to_pylist()
        return old.set_column(at, field, pa.array([change(values[0]), *values[1:]], field.type))

    return table(name, changed)


def letters(count: int, each: int, column: str) -> Fault:
    """So many texts of so many letters in the first cluster; a dictionary makes them small."""

    def changed(old: Any) -> Any:
        at = old.schema.get_field_index(column)
        texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array(["a" * each]))
        return old.set_column(at, column, pa.ListArray.from_arrays([0, *[count] * K], texts))

    def fault(root: Path) -> None:
        path = root / CLUSTERS
        made = changed(pq.read_table(path)).replace_schema_metadata(None)
        pq.write_table(made, path, compression="zstd", write_page_checksum=True, store_schema=False)
        plain = pq.ParquetFile(path)  # the dictionary is Parquet's: columns are what they were
        assert plain.schema_arrow.field(column).type == pa.list_(pa.string())

    return fault


def flat(at: int, raw: bytes) -> Fault:
    """Bytes of the FAISS file."""

    def fault(root: Path) -> None:
        path = root / "index.faiss"
        whole = path.read_bytes()
        path.write_bytes(whole[:at] + raw + whole[at + len(raw) :])

    return fault


def listed(name: str) -> Fault:
    """The manifest lists a file of that name too."""
    return lambda root: rewrite_manifest(root, lambda m: m["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))


def instead(name: str, make: Callable[[Path], Any]) -> Fault:
    """Something else where a file was; the manifest says what it said."""

    def fault(root: Path) -> None:
        (root / name).unlink()
        make(root / name)

    return fault


def linked(name: str) -> Fault:
    """The right file, but elsewhere."""

    def fault(root: Path) -> None:
        (root / name).rename(root.parent / f"{root.name}-{name}")
        (root / name).symlink_to(root.parent / f"{root.name}-{name}")

    return fault


def hollow(name: str) -> Fault:
    """A file of 500 GB that takes no place, and whose hash would take half an hour."""

    def fault(root: Path) -> None:
        os.truncate(root / name, 1 << 39)
        rewrite_manifest(root, lambda m: m["files"][name].update(bytes=1 << 39))

    return fault


def explained(name: str, size: int) -> Fault:
    """The same, of a size that the manifest's own numbers explain."""

    def fault(root: Path) -> None:
        os.truncate(root / name, size)
        rewrite_manifest(root, lambda m: m.update(layers=1 << 10, width=1 << 14, clusters=1 << 23))
        rewrite_manifest(root, lambda m: m["files"][name].update(bytes=size))

    return fault


def hist(foot: tt.Tree) -> None:
    """Statistics of a column that are of other levels than it has: PyArrow, asked for them, ends the process."""
    meta = tt.column(foot, 0, 3)[tt.META][1]
    meta[16] = tt.STRUCT, {2: (tt.LIST, (tt.I64, [1, 2, 3, 4]))}


def other_index(metric: str) -> Fault:
    def fault(root: Path) -> None:
        import faiss

        made = faiss.IndexFlatL2(D) if metric == "L2" else faiss.index_factory(D, "HNSW8", faiss.METRIC_INNER_PRODUCT)
        made.add(np.stack(pq.read_table(root / CLUSTERS)["centroid"].to_pylist()).astype(np.float32))
        (root / "index.faiss").write_bytes(faiss.serialize_index(made).tobytes())

    return fault


def moved(root: Path) -> None:
    """A statistic that is one, only not the build's: two neurons of one cluster exchange theirs, and their places."""
    path = root / NEURONS
    old = pq.read_table(path)
    rows, kept = old.column("statistic").to_pylist(), old.column("core").to_pylist()
    order = np.argsort(rows[L])
    a, b = int(order[-1]), int(order[-2])
    rows[L][a], rows[L][b] = rows[L][b], rows[L][a]
    made = pa.table([old.column(0), old.column(1), pa.array(rows, old.schema.field(2).type), kept], schema=old.schema)
    pq.write_table(made, path, row_group_size=L, write_page_checksum=True, compression="zstd")


def other_core(core: bytes) -> bytes:
    """As many neurons, others."""
    bits = np.unpackbits(np.frombuffer(core, np.uint8), bitorder="little")
    inside = bits[:F]
    inside[[int(inside.argmax()), int(inside.argmin())]] = 0, 1
    return np.packbits(bits, bitorder="little").tobytes()


def wide(field: int, kind: Any) -> Fault:
    """A column of another type."""
    return table("neurons", lambda t: t.set_column(field, t.schema.field(field).name, t.column(field).cast(kind)))
