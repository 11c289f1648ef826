"""The contract: what an artifact is on disk, written atomically and verified before any parser sees a byte.

``artifacts/FORMAT.md`` is the language-neutral specification. This file needs pyarrow and numpy alone, so that other
runtimes can use it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pyarrow import ArrowException

from coreinfer.errors import CoreInferError
from coreinfer.neurons import NeuronSet, mix, mixture_weights, unpack
from coreinfer.settings import PolicySettings, StatisticSettings

FORMAT, VERSION = "coreinfer-artifact", 1
GLOBAL = -1  # the cluster id of the global prior
MOST_VALUES = 1 << 31  # refuse tables that claim more numbers than this: a small file can expand without bound


@dataclass(frozen=True)
class Layout:
    """Every file name, once."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters.parquet"

    @property
    def neurons(self) -> Path:
        return self.root / "neurons.parquet"

    @property
    def layers(self) -> Path:
        return self.root / "layers.parquet"

    @property
    def index(self) -> Path:
        return self.root / "index.faiss"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def required(self) -> tuple[Path, ...]:
        return (self.clusters, self.neurons, self.layers, self.calibration)


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made the numbers: the name it was loaded by, its ``models.fingerprint``, dtype and longest input."""

    id: str
    weights: str
    dtype: str
    max_tokens: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: what the artifact was made from and with, and the size and sha256 of each of its files."""

    model: ModelIdentity
    embedder: ModelIdentity
    layers: int
    width: int
    dimension: int
    clusters: int
    passages: int
    tokens: int
    statistic: StatisticSettings
    default_keep: float
    seed: int
    config: dict[str, Any]
    files: dict[str, dict[str, Any]]

    def to_json(self) -> str:
        head = {"format": FORMAT, "version": VERSION, "metric": "cosine"}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> "Manifest":
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT or raw["version"] != VERSION:
                raise CoreInferError(
                    f"{where} has format {raw['format']!r} version {raw['version']!r}, this coreinfer reads {FORMAT!r} "
                    f"version {VERSION}: rebuild the artifact with build-clusters"
                )
            known = {k: v for k, v in raw.items() if k not in ("format", "version", "metric")}
            known["model"], known["embedder"] = ModelIdentity(**raw["model"]), ModelIdentity(**raw["embedder"])
            return cls(**{**known, "statistic": StatisticSettings(**raw["statistic"])})
        except (ValueError, KeyError, TypeError) as error:
            raise CoreInferError(f"{where} is not a valid manifest ({error!r}): rebuild the artifact") from error


def sha256_of(path: Path) -> str:
    """Hash a file in pieces; memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def describe(paths: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Size and sha256 by file name, for the manifest."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in paths}


def verify(root: Path) -> Manifest:
    """Check the manifest and the size and hash of every file; nothing else is parsed before this passed.

    Raises:
        CoreInferError: not an artifact, another version, or a missing or changed file, by name.
    """
    layout = Layout(Path(root))
    if not layout.manifest.is_file():
        raise CoreInferError(
            f"no artifact at {root} (no manifest.json there): make one with `coreinfer build-clusters`"
        )
    manifest = Manifest.from_json(layout.manifest.read_text("utf-8", errors="replace"), layout.manifest)
    for path in layout.required:
        if path.name not in manifest.files:
            raise CoreInferError(f"{layout.manifest} does not list {path.name}: rebuild the artifact")
    for name, facts in manifest.files.items():
        _verify_file(layout.root / Path(name).name, facts)
    return manifest


def _verify_file(path: Path, facts: dict[str, Any]) -> None:
    if not path.is_file():
        if path.suffix == ".faiss":
            return  # derived from clusters.parquet: rebuilt in memory
        raise CoreInferError(f"{path} is missing: copy the artifact again or rebuild it")
    if path.stat().st_size != facts.get("bytes") or sha256_of(path) != facts.get("sha256"):
        raise CoreInferError(f"{path} was changed after the build (its sha256 differs): copy it again or rebuild it")


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
            return cls(
                layout.root, manifest, policy, calibration,
                np.asarray(table["centroid"], np.float32).reshape(manifest.clusters, manifest.dimension),
                np.asarray(table["size"], np.int64), table["terms"], table["examples"],
                np.asarray(table["similarity_quantiles"], np.float32), *_budgets(layers, manifest.layers),
            )  # fmt: skip
        except (ArrowException, ValueError, KeyError, TypeError, OSError) as error:
            raise CoreInferError(f"{root} does not follow the format ({error}): rebuild the artifact") from error

    def prior(self, cluster: int) -> NDArray[np.float64]:
        """A cluster's mean share, already shrunk to the global prior; ``GLOBAL`` gives that one: (L, F)."""
        return _statistic(self.root, cluster, self.manifest.layers, self.manifest.width)

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
def _statistic(root: Path, cluster: int, layers: int, width: int) -> NDArray[np.float64]:
    column = _rows(root, cluster, "statistic").column("statistic").combine_chunks()
    return np.asarray(column.flatten().to_numpy(), np.float64).reshape(layers, width)
