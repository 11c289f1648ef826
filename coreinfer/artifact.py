"""The contract: what an artifact is on disk, verified before any parser sees a byte, and read as it is needed.

``artifacts/FORMAT.md`` is the language-neutral specification. This file needs pyarrow and numpy alone, so that other
runtimes can use it.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from coreinfer import strict_json
from coreinfer.calibrated import check_curve, policy_of
from coreinfer.contents import read_budgets, read_clusters, read_sensitivity
from coreinfer.errors import CoreInferError, in_words
from coreinfer.flat_index import check_index
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest
from coreinfer.neurons import NeuronSet, captured, mix, mixture_weights, pack, share, top
from coreinfer.own_files import Stamp
from coreinfer.policy import score
from coreinfer.settings import PolicySettings, Source
from coreinfer.tables import GLOBAL, Stored, check_neurons, matrix, read_rows
from coreinfer.verified import verify

__all__ = ["GLOBAL", "Artifact"]
Shares = NDArray[np.float64] | None  # (L, F) of a prompt or a prior, where it is known
# Of broken content. MemoryError: what claims too much for this machine, though no reader should come so far.
FAULTS = (pa.ArrowException, ValueError, LookupError, TypeError, ArithmeticError, RecursionError, MemoryError)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Any fault of the disk or of the content becomes one line that names the file."""
    try:
        yield
    except pa.ArrowException as error:  # some are OSErrors too; what Arrow says of a file is about its content
        raise _malformed(path, error) from error
    except OSError as error:
        raise CoreInferError(f"cannot read {path}: {in_words(error)}; copy the artifact again or rebuild it") from error
    except FAULTS as error:
        raise _malformed(path, error) from error


def _malformed(path: Path, error: BaseException) -> CoreInferError:
    said = in_words(error) if not isinstance(error, LookupError) else f"it lacks {in_words(error)}"
    return CoreInferError(f"{path} does not follow the format ({said}): rebuild the artifact")


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: K clusters over d dimensions, L layers of F neurons.

    Attributes:
        centroids: float32 (K, d), unit vectors.
        sizes, tokens: int64 (K,), passages in each cluster, and their tokens.
        terms: each cluster's top c-TF-IDF terms.
        quantiles: float32 (K, 5), similarity of members to the centroid at 0.05, 0.25, 0.5, 0.75, 0.95.
        sensitivity: float32 (L, F), what each neuron's score is multiplied by before neurons are ranked; 1 if nothing
            else was measured to be better.
        stamp: of ``neurons.parquet`` when its hash was verified; its rows are read later.
        digest: the sha256 of the manifest, which has those of all other files: so it names the artifact that was
            loaded, whatever has its place by now.
    """

    root: Path
    manifest: Manifest
    policy: PolicySettings
    calibration: dict[str, Any]
    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    terms: list[list[str]]
    examples: list[list[str]]
    quantiles: NDArray[np.float32]
    budget_grid: NDArray[np.float64]
    budget_table: NDArray[np.float64]
    sensitivity: NDArray[np.float32]
    stamp: Stamp
    digest: str

    @classmethod
    def load(cls, root: str | Path) -> "Artifact":
        """Verify, then parse all but the statistics, which are read by row group when they are needed."""
        layout = Layout(Path(root))
        with _reading(layout.root):
            manifest, digest, contents, stamp = verify(layout.root)
        with _reading(layout.neurons):
            check_neurons(_stored(layout, manifest, stamp))
        with _reading(layout.calibration):
            calibration = strict_json.parse(contents[layout.calibration.name].raw.decode("utf-8"))
            policy = policy_of(calibration)
            check_curve(calibration)
        with _reading(layout.clusters):
            found = read_clusters(contents[layout.clusters.name], manifest)
        with _reading(layout.index):
            if layout.index.name in contents:
                check_index(contents[layout.index.name], found.centroids)
        with _reading(layout.layers):
            grid, budgets = read_budgets(contents[layout.layers.name], manifest)
        with _reading(layout.sensitivity):
            sensitivity = read_sensitivity(contents[layout.sensitivity.name], manifest)
        return cls(
            layout.root, manifest, policy, calibration, found.centroids, found.sizes, found.tokens, found.terms,
            found.examples, found.quantiles, grid, budgets, sensitivity, stamp, digest,
        )  # fmt: skip

    @staticmethod
    def from_hub(repo: str, revision: str | None = None, token: str | None = None) -> "Artifact":
        """``coreinfer.export.sharing.from_hub``; needs huggingface_hub."""
        from coreinfer.export.sharing import from_hub

        return from_hub(repo, revision, token)

    def push_to_hub(self, repo: str, private: bool = False, token: str | None = None) -> str:
        """``coreinfer.export.sharing.push_to_hub``; needs huggingface_hub and matplotlib."""
        from coreinfer.export.sharing import push_to_hub

        return push_to_hub(self.root, repo, private, token)

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
        """A cluster's stored core set, if it is what its prior alone picks at ``manifest.default_keep``."""
        keep, path = self.manifest.default_keep, Layout(self.root).neurons
        picked = self.core(self.prior(cluster), keep)
        with _reading(path):
            if read_rows(self._stored, cluster).column("core").to_pylist() != pack(picked):
                raise ValueError(f"the core set of cluster {cluster} is not what its statistic picks at keep {keep:g}")
        return picked

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
        return _stored(Layout(self.root), self.manifest, self.stamp)


def _stored(layout: Layout, made: Manifest, stamp: Stamp) -> Stored:
    path = layout.neurons
    return Stored(path, made.files[path.name]["sha256"], stamp, made.clusters, made.layers, made.width)


@lru_cache(maxsize=64)
def _statistic(stored: Stored, cluster: int) -> NDArray[np.float64]:
    """Kept by hash: another artifact may take this one's place on disk."""
    with _reading(stored.path):
        values = matrix(read_rows(stored, cluster), "statistic", stored.layers).astype(np.float64)
        if not ((values >= 0).all() and np.allclose(values.sum(-1), 1, atol=1e-3)):
            raise ValueError(f"{stored.path.name} holds rows of cluster {cluster} that are no shares of 1")
    values.flags.writeable = False
    return values
