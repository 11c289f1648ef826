"""The contract: what an artifact is on disk, verified before any parser sees a byte, and read as it is needed.

``artifacts/FORMAT.md`` is the language-neutral specification. This file needs pyarrow and numpy alone, so that other
runtimes can use it.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.manifest import Layout, Manifest, verify
from coreinfer.neurons import NeuronSet, mix, mixture_weights, unpack
from coreinfer.settings import PolicySettings

GLOBAL = -1  # the cluster id of the global prior
MOST_VALUES = 1 << 31  # refuse tables that claim more numbers than this: a small file can expand without bound


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: K clusters over d dimensions, L layers of F neurons.

    Attributes:
        centroids: float32 (K, d), unit vectors.
        sizes: int64 (K,), passages in each cluster.
        terms: each cluster's top c-TF-IDF terms.
        quantiles: float32 (K, 5), similarity of members to the centroid at 0.05, 0.25, 0.5, 0.75, 0.95.
    """

    root: Path
    manifest: Manifest
    policy: PolicySettings
    calibration: dict[str, Any]
    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    terms: list[list[str]]
    examples: list[list[str]]
    quantiles: NDArray[np.float32]
    budget_grid: NDArray[np.float64]
    budget_table: NDArray[np.float64]

    @classmethod
    def load(cls, root: str | Path) -> "Artifact":
        """Verify, then read all but the statistics, which are read by row group when they are needed."""
        layout = Layout(Path(root))
        manifest = verify(layout.root)
        try:
            calibration = json.loads(layout.calibration.read_text("utf-8"))
            policy = PolicySettings(**calibration["policy"])
            table = _read(layout.clusters).to_pydict()
            layers = _read(layout.layers).to_pydict()
            _check_neurons(layout.neurons, manifest)
            return cls(
                layout.root, manifest, policy, calibration,
                np.asarray(table["centroid"], np.float32).reshape(manifest.clusters, manifest.dimension),
                np.asarray(table["size"], np.int64), table["terms"], table["examples"],
                np.asarray(table["similarity_quantiles"], np.float32), *_budgets(layers, manifest.layers),
            )  # fmt: skip
        except (pa.ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            raise CoreInferError(f"{root} does not follow the format ({error}): rebuild the artifact") from error

    def prior(self, cluster: int) -> NDArray[np.float64]:
        """A cluster's mean share, already shrunk to the global prior; ``GLOBAL`` gives that one: (L, F)."""
        return _statistic(self.root, self.manifest.files["neurons.parquet"]["sha256"], cluster)

    def prior_of(self, clusters: NDArray[np.int64], similarities: NDArray[np.float32]) -> NDArray[np.float64]:
        """The softmax-weighted mixture of the nearest clusters' priors: (L, F)."""
        weights = mixture_weights(similarities, self.policy.sharpness)
        return mix(np.stack([self.prior(int(c)) for c in clusters]), weights)

    def core_set(self, cluster: int) -> NeuronSet:
        """A cluster's stored core set, at ``manifest.default_keep``."""
        rows = _rows(self.root, cluster, "core")
        return unpack(rows.column("core").to_pylist(), self.manifest.width)

    def budgets(self, keep: float) -> NDArray[np.int64]:
        """Neurons to keep in each layer, (L,): linear between the stored keeps, rounded, at least 1."""
        table = [np.interp(keep, self.budget_grid, column) for column in self.budget_table.T]
        return np.maximum(1, np.rint(table)).astype(np.int64)


def _budgets(rows: dict[str, list[Any]], layers: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``layers.parquet`` -> the grid of keeps (n,) and the budgets (n, L)."""
    grid = np.asarray(rows["keep"], np.float64).reshape(-1, layers)[:, 0]
    return grid, np.asarray(rows["budget"], np.float64).reshape(-1, layers)


def _read(path: Path) -> Any:
    file = pq.ParquetFile(path, page_checksum_verification=True)
    if file.metadata.num_rows * max(file.metadata.num_columns, 1) > MOST_VALUES:
        raise ValueError(f"{path.name} claims {file.metadata.num_rows} rows")
    return file.read()


def _rows(root: Path, cluster: int, *columns: str) -> Any:
    """The row group of a cluster: group 0 is the global prior, group c + 1 is cluster c."""
    with pq.ParquetFile(Layout(root).neurons, page_checksum_verification=True) as file:
        rows = file.read_row_group(cluster + 1, columns=["cluster", *columns])
    if set(rows.column("cluster").to_pylist()) != {cluster}:
        raise CoreInferError(f"{Layout(root).neurons} has no row group for cluster {cluster}: rebuild the artifact")
    return rows


@lru_cache(maxsize=64)
def _statistic(root: Path, sha256: str, cluster: int) -> NDArray[np.float64]:
    """Kept by hash: another artifact may take this one's place on disk."""
    column = _rows(root, cluster, "statistic").column("statistic").combine_chunks()
    return np.asarray(column.flatten().to_numpy(), np.float64).reshape(len(column), -1)


def _check_neurons(path: Path, manifest: Manifest) -> None:
    """One row group for each cluster and the global prior, a row a layer, ``width`` numbers a row."""
    with pq.ParquetFile(path) as file:
        kind = file.schema_arrow.field("statistic").type
        rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    if kind != pa.list_(pa.float32(), manifest.width):
        raise ValueError(f"{path.name} holds {kind}, not {manifest.width} float32 a row")
    if rows != [manifest.layers] * (manifest.clusters + 1):
        wanted = f"{manifest.clusters + 1} row groups of {manifest.layers} layers"
        raise ValueError(f"{path.name} has {len(rows)} row groups of {sorted(set(rows))} rows, not {wanted}")
