"""Statistics and centroids -> the artifact's files, the manifest last. ``artifacts/FORMAT.md`` specifies them."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.layout import Layout
from coreinfer.manifest import Manifest, describe
from coreinfer.match import make_index
from coreinfer.neurons import NeuronSet, pack
from coreinfer.settings import PolicySettings
from coreinfer.tables import GLOBAL, LAYERS, clusters_schema, neurons_schema, sensitivity_schema
from pipeline.data import Clustering

Core = Callable[[NDArray[np.float64]], NeuronSet]  # of a prior (L, F)
GRID = tuple(round(0.05 * i, 2) for i in range(1, 21))  # keeps that layers.parquet holds budgets for


def short(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """float32 rounded to 12 significant bits: ranks stay, and the empty low bytes compress to almost nothing."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 4096) / 4096, exponent), np.float32)


def write_neurons(path: Path, priors: Iterable[NDArray[np.float64]], core: Core, width: int) -> None:
    """``neurons.parquet``: the global prior, then the clusters', (L, F) each, as they come; a row group a cluster."""
    schema = neurons_schema(width)
    with pq.ParquetWriter(
        path, schema, compression="zstd", compression_level=9, use_dictionary=False,
        use_byte_stream_split=["statistic.list.element"], write_page_checksum=True, write_statistics=False,
    ) as writer:  # fmt: skip
        for cluster, prior in enumerate(priors, start=GLOBAL):
            stored, layers = short(prior), range(len(prior))
            kept = pack(core(stored.astype(np.float64)))  # from the stored values: readers agree
            writer.write_table(_table(schema, [cluster] * len(prior), layers, list(stored), kept))


def write_sensitivity(layout: Layout, weights: NDArray[np.floating]) -> None:
    """``sensitivity.parquet``: a weight for each neuron of each layer, (L, F)."""
    table = _table(sensitivity_schema(weights.shape[1]), range(len(weights)), list(short(np.asarray(weights, float))))
    pq.write_table(table, layout.sensitivity, compression="zstd", write_page_checksum=True)


def write_clusters(
    layout: Layout, clustering: Clustering, tokens: NDArray[np.int64], terms: list[list[str]], examples: list[list[str]]
) -> None:
    """``clusters.parquet``: a row per cluster."""
    write_cluster_rows(layout, clustering.centroids, clustering.sizes, tokens, clustering.quantiles(), terms, examples)


def write_cluster_rows(
    layout: Layout, centroids: NDArray[np.float32], sizes: NDArray[np.int64], tokens: NDArray[np.int64],
    quantiles: NDArray[np.float32], terms: list[list[str]], examples: list[list[str]],
) -> None:  # fmt: skip
    """The same of columns, a value or a row for each of the K clusters."""
    count, dimension = centroids.shape
    table = _table(
        clusters_schema(dimension), range(count), sizes, tokens, list(centroids), list(quantiles), terms, examples
    )
    pq.write_table(table, layout.clusters, compression="zstd", write_page_checksum=True)


def uniform_table(layers: int, width: int) -> NDArray[np.int64]:
    """The same budget for each layer at each keep of ``GRID``: (n, L)."""
    return np.array([[round(keep * width)] * layers for keep in GRID], np.int64)


def write_layers(layout: Layout, budgets: NDArray[np.int64]) -> None:
    """``layers.parquet``: the budget of each layer at each keep of ``GRID``, (n, L)."""
    rows = [(keep, layer, int(n)) for keep, row in zip(GRID, budgets, strict=True) for layer, n in enumerate(row)]
    pq.write_table(
        _table(LAYERS, *zip(*rows, strict=True)), layout.layers, compression="zstd", write_page_checksum=True
    )


def _table(schema: pa.Schema, *columns: Any) -> pa.Table:
    """Columns in the order of a schema."""
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def write_calibration(layout: Layout, policy: PolicySettings, evidence: dict[str, Any]) -> None:
    """``calibration.json``: the online half's numbers and what they were chosen from."""
    layout.calibration.write_text(json.dumps({"policy": asdict(policy), **evidence}, indent=1) + "\n", "utf-8")


def write_index(layout: Layout, centroids: NDArray[np.float32]) -> None:
    """``index.faiss`` for other readers; ours rebuilds it from ``clusters.parquet``."""
    import faiss

    raw = faiss.serialize_index(make_index(centroids, exact=True))
    layout.index.write_bytes(raw.tobytes())  # a full disk is an OSError so


def write_manifest(layout: Layout, **facts: Any) -> Manifest:
    """``manifest.json``, last: a folder without one is no artifact."""
    manifest = Manifest(files=describe((*layout.required, layout.index)), **facts)
    layout.manifest.write_text(manifest.to_json(), "utf-8")
    return manifest
