"""The contract: what an artifact is on disk, verified before any parser sees a byte, and read as it is needed.

``artifacts/FORMAT.md`` is the language-neutral specification. This file needs pyarrow and numpy alone, so that other
runtimes can use it.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coreinfer.errors import CoreInferError, in_words
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest, verify
from coreinfer.neurons import NeuronSet, captured, mix, mixture_weights, share, top, unpack
from coreinfer.policy import score
from coreinfer.settings import PolicySettings, Source
from coreinfer.tables import (
    GLOBAL,
    LAYERS,
    Stamp,
    Stored,
    check_neurons,
    clusters_schema,
    matrix,
    numbers,
    read_rows,
    read_table,
    sensitivity_schema,
)

__all__ = ["GLOBAL", "Artifact"]
Shares = NDArray[np.float64] | None  # (L, F) of a prompt or a prior, where it is known
FAULTS = (pa.ArrowException, ValueError, LookupError, TypeError, ArithmeticError, RecursionError)  # of broken content


@contextmanager
def _reading(root: Path) -> Iterator[None]:
    """Any fault of the disk or of the content becomes one line that names the artifact."""
    try:
        yield
    except OSError as error:
        raise CoreInferError(f"cannot read {root}: {in_words(error)}; copy the artifact again or rebuild it") from error
    except FAULTS as error:
        raise CoreInferError(f"{root} does not follow the format ({in_words(error)}): rebuild the artifact") from error


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: K clusters over d dimensions, L layers of F neurons.

    Attributes:
        centroids: float32 (K, d), unit vectors.
        sizes: int64 (K,), passages in each cluster.
        terms: each cluster's top c-TF-IDF terms.
        quantiles: float32 (K, 5), similarity of members to the centroid at 0.05, 0.25, 0.5, 0.75, 0.95.
        sensitivity: float32 (L, F), what each neuron's score is multiplied by before neurons are ranked; 1 if nothing
            else was measured to be better.
        stamp: of ``neurons.parquet`` when its hash was verified; its rows are read later.
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
    sensitivity: NDArray[np.float32]
    stamp: Stamp

    @classmethod
    def load(cls, root: str | Path) -> "Artifact":
        """Verify, then read all but the statistics, which are read by row group when they are needed."""
        layout = Layout(Path(root))
        with _reading(layout.root):
            # Before the hash is: what replaces the file after this is noticed, whenever it comes.
            stamp = Stamp.of(layout.neurons.stat()) if layout.neurons.is_file() else Stamp(0, 0, 0)
            manifest = verify(layout.root)
            check_neurons(layout.neurons, manifest)
            calibration = json.loads(layout.calibration.read_text("utf-8"))
            policy = _policy(calibration["policy"])
            _check_curve(calibration.get("curve", []))
            table = read_table(layout.clusters, clusters_schema(manifest.dimension))
            quantiles = matrix(table, "similarity_quantiles", manifest.clusters)
            sizes, terms, examples = (table.column(name).to_pylist() for name in ("size", "terms", "examples"))
            if any(None in words for words in (*terms, *examples)):
                raise ValueError(f"{layout.clusters.name} has empty cells")
            grid, budgets = _budgets(read_table(layout.layers, LAYERS), manifest)
            return cls(
                layout.root, manifest, policy, calibration, _centroids(table, manifest),
                np.asarray(sizes, np.int64), terms, examples, quantiles, grid, budgets,
                _sensitivity(read_table(layout.sensitivity, sensitivity_schema(manifest.width)), manifest), stamp,
            )  # fmt: skip

    def prior(self, cluster: int) -> NDArray[np.float64]:
        """A cluster's mean share, already shrunk to the global prior; ``GLOBAL`` gives that one: (L, F), read-only."""
        return _statistic(self._stored, cluster)

    def prior_of(self, clusters: NDArray[np.int64], similarities: NDArray[np.float32]) -> NDArray[np.float64]:
        """The softmax-weighted mixture of the nearest clusters' priors: (L, F)."""
        weights = mixture_weights(similarities, self.policy.sharpness)
        return mix(np.stack([self.prior(int(c)) for c in clusters]), weights)

    def doubt(self, prompt: NDArray[np.float64], prior: NDArray[np.float64]) -> float:
        """How far the neurons that a prompt used, its statistic (L, F), disagree with a prior: the part of what the
        prompt's own core set holds of the statistic that the prior's core set misses. 0: none; at most 1.
        """
        keep, used = self.manifest.default_keep, share(prompt)
        return 1 - captured(used, self.core(prior, keep)) / captured(used, self.core(prompt, keep))

    def worth(self, source: Source, similarity: float, prior: Shares, prompt: Shares, tokens: int) -> float:
        """How many prompt tokens the prior counts for: all and more (infinity) for similarity, 0 for stability."""
        if source != "hybrid":
            return math.inf if source == "similarity" else 0.0
        assert prompt is not None
        assert prior is not None
        doubt = self.doubt(prompt, prior) if self.policy.usual(tokens) < 1 else 0.0  # it ranks all neurons twice
        return self.policy.n0_at(similarity, doubt, tokens)

    def scores(
        self, source: Source, similarity: float, prior: Shares, prompt: Shares, tokens: int
    ) -> NDArray[np.float64]:
        """The formula, ``coreinfer.policy.score``, with what the prior is worth here: (L, F)."""
        return score(source, prior, prompt, tokens, self.worth(source, similarity, prior, prompt, tokens))

    def core(self, scores: NDArray[np.float64], keep: float) -> NeuronSet:
        """The neurons that scores (L, F), of shares of the artifact's statistic, pick: weighed, under the budgets."""
        return top(scores * self.sensitivity, self.budgets(keep))

    def core_set(self, cluster: int) -> NeuronSet:
        """A cluster's stored core set: what its prior alone picks at ``manifest.default_keep``."""
        width = self.manifest.width
        with _reading(self.root):
            rows = read_rows(self._stored, cluster).column("core").to_pylist()
            if {len(row) for row in rows} != {(width + 7) // 8}:
                raise ValueError(f"a core set of cluster {cluster} is not {(width + 7) // 8} bytes long")
            return unpack(rows, width)

    def budgets(self, keep: float) -> NDArray[np.int64]:
        """Neurons to keep in each layer, (L,): linear between 0 and the stored keeps, rounded, at least 1."""
        grid = [0.0, *self.budget_grid]
        table = [np.interp(keep, grid, [0.0, *column]) for column in self.budget_table.T]
        return np.maximum(1, np.rint(table)).astype(np.int64)

    def keep_for(self, max_loss: float) -> float:
        """The least keep whose expected NLL rise is at most ``max_loss``, nats per token; linear between measured ones.

        Raises:
            CoreInferError: no curve was measured, or not even all neurons reach it.
        """
        if not (curve := self.calibration.get("curve")):
            raise CoreInferError(
                f"{self.root} holds no curve of what a keep costs: run `coreinfer calibrate {self.root} TEXTS`, "
                "or give --keep"
            )
        if not max_loss >= 0:
            raise CoreInferError(f"--max-loss is {max_loss:g}: the least that any keep costs is 0, at keep 1")
        keeps, costs = ([*(float(row[name]) for row in curve), last] for name, last in (("keep", 1.0), ("rise", 0.0)))
        falling = np.maximum.accumulate(np.maximum(costs, 0.0)[::-1])  # what a higher keep was seen to cost, counts
        return math.ceil(float(np.interp(max_loss, falling, keeps[::-1])) * 1e4 - 1e-6) / 1e4

    @property
    def _stored(self) -> Stored:
        made, path = self.manifest, Layout(self.root).neurons
        return Stored(path, made.files[path.name]["sha256"], self.stamp, made.clusters, made.layers, made.width)


def _policy(raw: dict[str, Any]) -> PolicySettings:
    """``calibration.json``'s numbers: all of them, and none that matching or ranking could not use."""
    policy = PolicySettings(**raw)
    signed, unsigned = (
        (policy.threshold, policy.strong, policy.sharpness),
        (policy.n0, policy.shrink, policy.doubt, policy.doubt_fall),
    )
    usable = all(abs(x) < 1e9 for x in signed) and all(0 <= x < 1e9 for x in unsigned)  # NaN is not
    usable = usable and policy.strong >= policy.threshold
    whole = isinstance(policy.mixture, int) and policy.mixture > 0
    if asdict(policy) != raw or policy.auto not in get_args(Source) or not (usable and whole):
        raise ValueError(f"the policy is {raw}")
    return policy


def _centroids(table: Any, manifest: Manifest) -> NDArray[np.float32]:
    centroids = matrix(table, "centroid", manifest.clusters)
    if table.column("cluster").to_pylist() != list(range(manifest.clusters)):
        raise ValueError(f"clusters.parquet does not hold clusters 0 to {manifest.clusters - 1} in this order")
    if not np.allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-3):
        raise ValueError("clusters.parquet holds centroids that are no unit vectors")
    return centroids


def _check_curve(rows: list[dict[str, Any]]) -> None:
    """Refuse a curve that no keep could be read from."""
    keeps = [0.0, *(row["keep"] for row in rows)]
    rising = all(a < b <= 1 for a, b in pairwise(keeps))  # NaN does not
    if not rising or not all(isinstance(row["rise"], float | int) and abs(row["rise"]) < 1e9 for row in rows):
        raise ValueError(f"the curve is {rows}")


def _budgets(table: Any, manifest: Manifest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``layers.parquet`` -> the grid of keeps (n,) and the budgets (n, L)."""
    columns = (numbers(column.combine_chunks()).astype(np.float64) for column in table.columns)
    keep, layer, budget = (column.reshape(-1, manifest.layers) for column in columns)
    grid = keep[:, 0]
    rising = grid[0] > 0 and grid[-1] == 1 and (np.diff(grid) > 0).all() and (keep == grid[:, None]).all()
    if not rising or (layer != np.arange(manifest.layers)).any():
        raise ValueError("layers.parquet is not by keep, rising to 1, and then by layer")
    if not ((budget >= 0) & (budget <= manifest.width)).all():
        raise ValueError(f"layers.parquet holds budgets that are not from 0 to {manifest.width}")
    return grid, budget


def _sensitivity(table: Any, manifest: Manifest) -> NDArray[np.float32]:
    weights = matrix(table, "weight", manifest.layers)
    if table.column("layer").to_pylist() != list(range(manifest.layers)):
        raise ValueError(f"sensitivity.parquet does not hold layers 0 to {manifest.layers - 1} in this order")
    if not ((weights >= 0) & (weights < 1e30)).all():  # NaN is neither
        raise ValueError("sensitivity.parquet holds weights that are no numbers from 0 on")
    return weights


@lru_cache(maxsize=64)
def _statistic(stored: Stored, cluster: int) -> NDArray[np.float64]:
    """Kept by hash: another artifact may take this one's place on disk."""
    with _reading(stored.path.parent):
        values = matrix(read_rows(stored, cluster), "statistic", stored.layers).astype(np.float64)
        if not ((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3)):
            raise ValueError(f"{stored.path.name} holds rows of cluster {cluster} that are no shares of 1")
    values.flags.writeable = False
    return values
