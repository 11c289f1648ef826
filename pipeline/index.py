"""Statistics and centroids -> the artifact's files, the manifest last. ``artifacts/FORMAT.md`` specifies them."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.artifact import GLOBAL
from coreinfer.manifest import Layout, Manifest, describe
from coreinfer.match import make_index
from coreinfer.neurons import pack, top, uniform_budgets
from coreinfer.settings import PolicySettings
from pipeline.cluster import Clustering

GRID = tuple(round(0.05 * i, 2) for i in range(1, 21))  # keeps that layers.parquet holds budgets for


def short(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 rounded to 12 significant bits: ranks stay, and the empty low bytes compress to almost nothing."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 4096) / 4096, exponent), np.float32)


def write_neurons(layout: Layout, everything: NDArray[np.float64], each: NDArray[np.float64], keep: float) -> None:
    """``neurons.parquet``: a row per (cluster, layer), a row group per cluster, the global prior first."""
    layers, width = everything.shape
    schema = pa.schema([
        ("cluster", pa.int32()), ("layer", pa.int32()), ("statistic", pa.list_(pa.float32(), width)),
        ("core", pa.binary()),
    ])  # fmt: skip
    with pq.ParquetWriter(
        layout.neurons, schema, compression="zstd", compression_level=9, use_dictionary=False,
        use_byte_stream_split=["statistic.list.element"], write_page_checksum=True, write_statistics=False,
    ) as writer:  # fmt: skip
        for cluster, prior in enumerate([everything, *each], start=GLOBAL):
            stored = short(prior)
            core = pack(top(stored, uniform_budgets(keep, layers, width)))  # from the stored values: readers agree
            columns = [[cluster] * layers, list(range(layers)), list(stored), core]
            arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))


def write_clusters(
    layout: Layout, clustering: Clustering, tokens: NDArray[np.int64], terms: list[list[str]], examples: list[list[str]]
) -> None:
    """``clusters.parquet``: a row per cluster."""
    count, dimension = clustering.centroids.shape
    table = pa.table({
        "cluster": pa.array(range(count), pa.int32()),
        "size": pa.array(clustering.sizes, pa.int64()),
        "tokens": pa.array(tokens, pa.int64()),
        "centroid": pa.array(list(clustering.centroids), pa.list_(pa.float32(), dimension)),
        "similarity_quantiles": pa.array(list(clustering.quantiles()), pa.list_(pa.float32(), 5)),
        "terms": pa.array(terms, pa.list_(pa.string())),
        "examples": pa.array(examples, pa.list_(pa.string())),
    })  # fmt: skip
    pq.write_table(table, layout.clusters, compression="zstd", write_page_checksum=True)


def write_layers(layout: Layout, layers: int, width: int) -> None:
    """``layers.parquet``: the budget of each layer at each keep of the grid; uniform until calibration says better."""
    rows = [(keep, layer, round(keep * width)) for keep in GRID for layer in range(layers)]
    schema = pa.schema([("keep", pa.float64()), ("layer", pa.int32()), ("budget", pa.int64())])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema)
    pq.write_table(table, layout.layers, compression="zstd", write_page_checksum=True)


def write_calibration(layout: Layout, policy: PolicySettings, evidence: dict[str, Any]) -> None:
    """``calibration.json``: the online half's numbers and what they were chosen from."""
    layout.calibration.write_text(json.dumps({"policy": asdict(policy), **evidence}, indent=1) + "\n", "utf-8")


def write_index(layout: Layout, centroids: NDArray[np.float32]) -> None:
    """``index.faiss`` for other readers; ours rebuilds it from ``clusters.parquet``."""
    import faiss

    layout.index.write_bytes(faiss.serialize_index(make_index(centroids)).tobytes())  # a full disk is an OSError so


def write_manifest(layout: Layout, **facts: Any) -> Manifest:
    """``manifest.json``, last: a folder without one is no artifact."""
    manifest = Manifest(files=describe((*layout.required, layout.index)), **facts)
    layout.manifest.write_text(manifest.to_json(), "utf-8")
    return manifest
