"""The contract: what an artifact is on disk, verified before any parser sees a byte, and read as it is needed.

``artifacts/FORMAT.md`` is the language-neutral specification. This file needs pyarrow and numpy alone, so that other
runtimes can use it.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError
from coreinfer.manifest import Layout, Manifest, verify
from coreinfer.neurons import NeuronSet, mix, mixture_weights, unpack
from coreinfer.paths import in_words
from coreinfer.settings import PolicySettings, Source

GLOBAL = -1  # the cluster id of the global prior
MOST_VALUES = 1 << 28  # refuse a row group that claims more than this: a small file can expand without bound
FAULTS = (pa.ArrowException, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)  # of broken content

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


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    """Any fault of the disk or of the content becomes one line that names the artifact."""
    try:
        yield
    except OSError as error:
        raise CoreInferError(f"cannot read {root}: {in_words(error)}; copy the artifact again or rebuild it") from error
    except FAULTS as error:
        raise CoreInferError(f"{root} does not follow the format ({in_words(error)}): rebuild the artifact") from error


class _Stored(NamedTuple):
    """``neurons.parquet`` as it was verified: what decides the numbers read from it, so that they can be kept."""

    path: Path
    sha256: str
    size: int
    clusters: int
    layers: int
    width: int


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
        with _reading(layout.root):
            manifest = verify(layout.root)
            _check_neurons(layout.neurons, manifest)
            calibration = json.loads(layout.calibration.read_text("utf-8"))
            policy = _policy(calibration["policy"])
            table = _read(layout.clusters, clusters_schema(manifest.dimension))
            quantiles = _matrix(table, "similarity_quantiles", manifest.clusters)
            sizes, terms, examples = (table.column(name).to_pylist() for name in ("size", "terms", "examples"))
            if any(None in words for words in (*terms, *examples)):
                raise ValueError(f"{layout.clusters.name} has empty cells")
            grid, budgets = _budgets(_read(layout.layers, LAYERS), manifest)
            return cls(
                layout.root, manifest, policy, calibration, _centroids(table, manifest),
                np.asarray(sizes, np.int64), terms, examples, quantiles, grid, budgets,
            )  # fmt: skip

    def prior(self, cluster: int) -> NDArray[np.float64]:
        """A cluster's mean share, already shrunk to the global prior; ``GLOBAL`` gives that one: (L, F), read-only."""
        return _statistic(self._stored, cluster)

    def prior_of(self, clusters: NDArray[np.int64], similarities: NDArray[np.float32]) -> NDArray[np.float64]:
        """The softmax-weighted mixture of the nearest clusters' priors: (L, F)."""
        weights = mixture_weights(similarities, self.policy.sharpness)
        return mix(np.stack([self.prior(int(c)) for c in clusters]), weights)

    def core_set(self, cluster: int) -> NeuronSet:
        """A cluster's stored core set, at ``manifest.default_keep``."""
        width = self.manifest.width
        with _reading(self.root):
            rows = _rows(self._stored, cluster).column("core").to_pylist()
            if {len(row) for row in rows} != {(width + 7) // 8}:
                raise ValueError(f"a core set of cluster {cluster} is not {(width + 7) // 8} bytes long")
            return unpack(rows, width)

    def budgets(self, keep: float) -> NDArray[np.int64]:
        """Neurons to keep in each layer, (L,): linear between the stored keeps, rounded, at least 1."""
        table = [np.interp(keep, self.budget_grid, column) for column in self.budget_table.T]
        return np.maximum(1, np.rint(table)).astype(np.int64)

    @property
    def _stored(self) -> _Stored:
        made, path = self.manifest, Layout(self.root).neurons
        facts = made.files[path.name]
        return _Stored(path, facts["sha256"], facts["bytes"], made.clusters, made.layers, made.width)


def _policy(raw: dict[str, Any]) -> PolicySettings:
    """``calibration.json``'s numbers: all of them, and none that matching or ranking could not use."""
    policy = PolicySettings(**raw)
    signed, unsigned = (policy.threshold, policy.sharpness), (policy.n0, policy.shrink)
    usable = all(abs(x) < 1e9 for x in signed) and all(0 <= x < 1e9 for x in unsigned)  # NaN is not
    whole = isinstance(policy.mixture, int) and policy.mixture > 0
    if asdict(policy) != raw or policy.auto not in get_args(Source) or not (usable and whole):
        raise ValueError(f"the policy is {raw}")
    return policy


def _matrix(table: Any, name: str, rows: int) -> NDArray[np.float32]:
    """A column of lists of one length as (rows, length)."""
    values = np.asarray(table.column(name).combine_chunks().flatten(), np.float32)
    return values.reshape(rows, table.schema.field(name).type.list_size)


def _centroids(table: Any, manifest: Manifest) -> NDArray[np.float32]:
    centroids = _matrix(table, "centroid", manifest.clusters)
    if table.column("cluster").to_pylist() != list(range(manifest.clusters)):
        raise ValueError(f"clusters.parquet does not hold clusters 0 to {manifest.clusters - 1} in this order")
    if not np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-3):
        raise ValueError("clusters.parquet holds centroids that are no unit vectors")
    return centroids


def _budgets(table: Any, manifest: Manifest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``layers.parquet`` -> the grid of keeps (n,) and the budgets (n, L)."""
    keep, layer, budget = (np.asarray(column, np.float64).reshape(-1, manifest.layers) for column in table.columns)
    grid = keep[:, 0]
    rising = grid[0] > 0 and grid[-1] == 1 and (np.diff(grid) > 0).all() and (keep == grid[:, None]).all()
    if not rising or (layer != np.arange(manifest.layers)).any():
        raise ValueError("layers.parquet is not by keep, rising to 1, and then by layer")
    if not ((budget >= 0) & (budget <= manifest.width)).all():
        raise ValueError(f"layers.parquet holds budgets that are not from 0 to {manifest.width}")
    return grid, budget


def _read(path: Path, schema: pa.Schema, groups: int = 1, group: int = 0) -> Any:
    """A row group of a table that has these columns and so many row groups. Its claims are looked at before it is."""
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if file.num_row_groups != groups or not file.schema_arrow.equals(schema):
            raise ValueError(
                f"{path.name} has {file.num_row_groups} row groups of {', '.join(file.schema_arrow.names)}"
            )
        facts = file.metadata.row_group(group)
        columns = [facts.column(i) for i in range(facts.num_columns)]
        if (claim := max(facts.total_byte_size // 8, *(c.num_values for c in columns))) > MOST_VALUES:
            raise ValueError(f"{path.name} claims {claim} values")
        return file.read_row_group(group)


def _rows(stored: _Stored, cluster: int) -> Any:
    """The rows of a cluster: row group 0 is the global prior, row group c + 1 is cluster c."""
    if not GLOBAL <= cluster < stored.clusters:
        raise CoreInferError(
            f"there is no cluster {cluster}: give {GLOBAL} (the global prior) to {stored.clusters - 1}"
        )
    if stored.path.stat().st_size != stored.size:
        raise CoreInferError(f"{stored.path} was replaced after it was opened: load the artifact again")
    rows = _read(stored.path, neurons_schema(stored.width), stored.clusters + 1, cluster + 1)
    order = [(cluster, layer) for layer in range(stored.layers)]
    if list(zip(rows.column("cluster").to_pylist(), rows.column("layer").to_pylist(), strict=True)) != order:
        raise ValueError(f"{stored.path.name} has other rows where those of cluster {cluster} belong")
    return rows


@lru_cache(maxsize=64)
def _statistic(stored: _Stored, cluster: int) -> NDArray[np.float64]:
    """Kept by hash: another artifact may take this one's place on disk."""
    with _reading(stored.path.parent):
        values = _matrix(_rows(stored, cluster), "statistic", stored.layers).astype(np.float64)
        if not ((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3)):
            raise ValueError(f"{stored.path.name} holds rows of cluster {cluster} that are no shares of 1")
    values.flags.writeable = False
    return values


def _check_neurons(path: Path, manifest: Manifest) -> None:
    """One row group for each cluster and the global prior, a row a layer, ``width`` numbers a row."""
    with pq.ParquetFile(path) as file:
        columns = file.schema_arrow
        rows = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    if not columns.equals(neurons_schema(manifest.width)):
        raise ValueError(f"{path.name} has the columns {columns.names}, or not {manifest.width} float32 a row")
    if len(rows) != manifest.clusters + 1 or set(rows) != {manifest.layers}:
        wanted = f"{manifest.clusters + 1} row groups of {manifest.layers} layers"
        raise ValueError(f"{path.name} has {len(rows)} row groups of {sorted(set(rows))} rows, not {wanted}")
