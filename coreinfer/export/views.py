"""Neuron sets as Arrow or JSON, for engines that would rather not unpack bits; and back, from any hand or tool.

All views say the same: what the sets are of, and per set and layer the sorted ids. Arrow and Parquet: the columns
below, and the rest as JSON under ``coreinfer`` in the schema's metadata. Reading them back needs no trust: sizes are
bounded, and every id is looked at.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from coreinfer import strict_json
from coreinfer.errors import CoreInferError, in_words
from coreinfer.export.bits import MOST_SETS, VERSION, Origin
from coreinfer.json_fields import count, hash_of, number, record, shown, text, whole
from coreinfer.neurons import NeuronSet
from coreinfer.places import moved_in, writing
from coreinfer.settings import check_keep

FORMAT, KEY = "coreinfer-sets", b"coreinfer"
SCHEMA = pa.schema([("cluster", pa.int32()), ("layer", pa.int32()), ("neurons", pa.list_(pa.int32()))])
MOST_BYTES = 1 << 30  # of a list that is imported: 128 sets of 183,000 ids in JSON have some 140 MB
Numbered = tuple[int, NeuronSet]
FAULTS = (pa.ArrowException, ValueError, LookupError, TypeError, OverflowError, RecursionError, CoreInferError)


@dataclass(frozen=True)
class Listed:
    """Neuron sets as a view has them. ``model``: the name, for people; ``origin``: None if the list does not say."""

    model: str
    origin: Origin | None
    layers: int
    width: int
    keep: float
    sets: tuple[Numbered, ...]


def write_view(path: Path, listed: Listed, remedy: str) -> None:
    """``path`` in the form that its suffix names: .json, .arrow (IPC file) or .parquet.

    Raises:
        CoreInferError: the disk refuses; ``remedy`` is what to do then.
    """
    write = {".json": _write_json, ".arrow": _write_arrow, ".parquet": _write_parquet}[path.suffix]
    with writing(path, remedy), moved_in(path) as part:
        write(part, listed)


def _head(listed: Listed) -> dict[str, Any]:
    origin = listed.origin
    model = {"id": listed.model} | ({} if origin is None else {"weights": origin.weights, "setup": origin.setup})
    made = {} if origin is None or not int(origin.manifest, 16) else {"artifact": origin.manifest}
    return {
        "format": FORMAT, "version": VERSION, "model": model, **made, "layers": listed.layers, "width": listed.width,
        "keep": listed.keep,
    }  # fmt: skip


def _write_json(path: Path, listed: Listed) -> None:
    """A set a line, so that no second copy of all of them lies in memory."""
    with path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(_head(listed), ensure_ascii=False)[:-1] + ', "sets": [')
        for at, (cluster, neurons) in enumerate(listed.sets):
            row = {"cluster": cluster, "neurons": [ids.tolist() for ids in neurons.layers]}
            file.write(("," if at else "") + "\n" + json.dumps(row, separators=(",", ":")))
        file.write("\n]}\n")


def _batches(listed: Listed) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """A batch a set."""
    schema = SCHEMA.with_metadata({KEY: json.dumps(_head(listed), ensure_ascii=False)})

    def batch(cluster: int, neurons: NeuronSet) -> pa.RecordBatch:
        ends = np.concatenate([[0], np.cumsum(neurons.per_layer)]).astype(np.int32)
        ids = pa.ListArray.from_arrays(pa.array(ends), pa.array(np.concatenate(neurons.layers)))
        layers = range(listed.layers)
        columns = [pa.array([cluster] * listed.layers, pa.int32()), pa.array(layers, pa.int32()), ids]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    return schema, (batch(*one) for one in listed.sets)


def _write_arrow(path: Path, listed: Listed) -> None:
    schema, batches = _batches(listed)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _write_parquet(path: Path, listed: Listed) -> None:
    schema, batches = _batches(listed)
    with pq.ParquetWriter(path, schema, compression="zstd", write_page_checksum=True) as writer:
        for batch in batches:
            writer.write_batch(batch)


def read_view(path: Path) -> Listed:
    """The sets of a .json, .arrow or .parquet file, looked through: every layer once, at least one neuron a layer, each
    once and below the width. Ids may stand in any order.

    Raises:
        CoreInferError: no such file, or the first thing in it that is not so.
    """
    readers: dict[str, Callable[[Path], Listed]] = {
        ".json": _read_json, ".arrow": _read_arrow, ".parquet": _read_parquet
    }  # fmt: skip
    if path.suffix not in readers:
        raise CoreInferError(f"{path} has the suffix {path.suffix!r}: give a .json, .parquet or .arrow file")
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")
        return readers[path.suffix](path)
    except OSError as error:
        if isinstance(error, pa.ArrowException):
            raise _unread(path, error) from error
        raise CoreInferError(f"cannot read the neuron list {path}: {in_words(error)}; check the path") from error
    except FAULTS as error:
        raise _unread(path, error) from error


def _unread(path: Path, error: BaseException) -> CoreInferError:
    said = f"it lacks {in_words(error)}" if isinstance(error, LookupError) else in_words(error)
    return CoreInferError(f"{path} is no list of neuron sets ({said}): mend it as artifacts/FORMAT.md says")


def _read_json(path: Path) -> Listed:
    raw = strict_json.parse(path.read_bytes().decode("utf-8"), most=MOST_BYTES)
    sets = record("the file", raw, None).pop("sets", None)
    if not isinstance(sets, list):
        raise ValueError(f"sets is {shown(sets)}, no list")
    return _listed(raw, (_row(at, one) for at, one in enumerate(sets)))


def _row(at: int, one: Any) -> tuple[int, list[Any]]:
    found = record(f"set {at}", one, None)
    neurons = found["neurons"]
    if not isinstance(neurons, list) or not all(isinstance(ids, list) for ids in neurons):
        raise ValueError(f"neurons of set {at} is no list of a list a layer")
    for layer, ids in enumerate(neurons):
        for x in ids:
            if type(x) is not int:
                raise ValueError(f"layer {layer} of set {at} has {shown(x)}, no neuron's number")
    return found.get("cluster", at), neurons


def _read_arrow(path: Path) -> Listed:
    with pa.OSFile(str(path), "rb") as source, pa.ipc.open_file(source) as file:
        batches = (file.get_batch(at) for at in range(file.num_record_batches))
        return _of_table(pa.Table.from_batches(_bounded(batches), file.schema))


def _read_parquet(path: Path) -> Listed:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        facts = file.metadata
        claim = sum(facts.row_group(at).total_byte_size for at in range(facts.num_row_groups))
        if claim > MOST_BYTES or facts.num_rows > MOST_SETS:
            raise ValueError(f"it claims {claim:,} bytes in {facts.num_rows:,} rows")
        return _of_table(pa.Table.from_batches(_bounded(file.iter_batches(batch_size=4096)), file.schema_arrow))


def _bounded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Until they are too much, whatever the file claimed: some kilobytes of Parquet can hold gigabytes."""
    size = 0
    for batch in batches:
        size += batch.nbytes
        if size > MOST_BYTES:
            raise ValueError(f"it holds more than {MOST_BYTES:,} bytes")
        yield batch


def _of_table(table: pa.Table) -> Listed:
    table.validate(full=True)
    if not table.schema.remove_metadata().equals(SCHEMA) or any(column.null_count for column in table.columns):
        raise ValueError(f"it has the columns {', '.join(table.column_names)}, or empty cells"[:300])
    head = (table.schema.metadata or {}).get(KEY)
    if head is None:
        raise ValueError(f"its schema's metadata has no {KEY.decode()!r}")
    raw = record("the metadata", strict_json.parse(head.decode("utf-8")), None)
    return _listed(raw, _rows(table))


def _rows(table: pa.Table) -> Iterator[tuple[int, list[Any]]]:
    """Sets of the rows of one cluster each, whose layers are 0, 1, 2 …"""
    clusters, layers = (table.column(name).to_pylist() for name in ("cluster", "layer"))
    ids, start = table.column("neurons"), 0
    for end in range(1, len(table) + 1):
        if end == len(table) or clusters[end] != clusters[start]:
            if layers[start:end] != list(range(end - start)):
                raise ValueError(f"cluster {clusters[start]} has the layers {layers[start:end]}"[:200])
            yield clusters[start], [ids[at].as_py() for at in range(start, end)]
            start = end


def _listed(raw: dict[str, Any], rows: Iterator[tuple[int, list[Any]]]) -> Listed:
    if raw.get("format") != FORMAT or raw.get("version") != VERSION:
        raise ValueError(f"format {shown(raw.get('format'))} version {shown(raw.get('version'))}, not {FORMAT} 1")
    model = record("model", raw["model"], None)
    layers, width = count("layers", raw["layers"]), count("width", raw["width"])
    sets = tuple(_checked(cluster, neurons, layers, width) for cluster, neurons in rows)
    if not sets:
        raise ValueError("it holds no set")
    if [one for one, _ in sets] != sorted({one for one, _ in sets}):
        raise ValueError("its clusters are not by rising number, each once")
    most = max(neurons.keep for _, neurons in sets)
    keep = check_keep(number("keep", raw["keep"])) if "keep" in raw else most
    return Listed(text("model.id", model["id"]), _origin(raw, model), layers, width, keep, sets)


def _origin(raw: dict[str, Any], model: dict[str, Any]) -> Origin | None:
    hashes = [hash_of(f"model.{name}", model[name]) for name in ("weights", "setup") if name in model]
    if len(hashes) == 1:
        raise ValueError("model has one of weights and setup: give both, or neither and --model")
    made = [hash_of("artifact", raw["artifact"])] if "artifact" in raw else []
    return Origin(hashes[0], hashes[1], *made) if hashes else None


def _checked(cluster: Any, neurons: Sequence[Any], layers: int, width: int) -> Numbered:
    number = whole("cluster", cluster, -1)
    if number >= 1 << 31:
        raise ValueError(f"cluster is {number}, beyond 31 bits")
    if len(neurons) != layers:
        raise ValueError(f"cluster {number} has {len(neurons)} layers of {layers}")
    if empty := [layer for layer, ids in enumerate(neurons) if not len(ids)]:
        raise ValueError(f"layer {empty[0]} of cluster {number} keeps no neuron")
    try:
        return number, NeuronSet(tuple(np.sort(np.asarray(_small(ids), np.int32)) for ids in neurons), width)
    except CoreInferError as error:
        raise ValueError(f"cluster {number}: {in_words(error)}") from error


def _small(ids: Sequence[int]) -> Sequence[int]:
    """Ids that 32 bits hold; ``NeuronSet`` looks at the rest."""
    if odd := [x for x in ids if not 0 <= x < 1 << 31]:
        raise ValueError(f"there is neuron {odd[0]}")
    return ids
