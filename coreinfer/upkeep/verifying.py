"""Everything about an artifact that can be checked without its models: also what no single read looks at.

``Artifact.load`` checks hashes, the small tables and every number in them; a cluster's statistic and core set are
checked when they are read. Here all of them are, and what they have in common: the global prior is the mean of the
clusters', each weighing as much as it has passages.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import MANIFEST
from coreinfer.wording import counted

STEP = 2.0**-12  # the most that rounding to 12 significant bits moves a number, relative to it
LEAST = 2.0**-34  # ... and what the fixed point of a build's sums does


@dataclass(frozen=True)
class Checked:
    """A file, its size in bytes (0: it is not there), and what was found to be right about it."""

    file: str
    bytes: int
    found: str


def verified(root: str | Path) -> tuple[Artifact, list[Checked]]:
    """An artifact of which everything was checked, and what that was, file by file.

    Raises:
        CoreInferError: a fault, with the file that has it.
    """
    artifact = Artifact.load(root)
    check_statistics(artifact)
    return artifact, _report(artifact)


def unlisted(artifact: Artifact) -> list[str]:
    """What lies in an artifact's folder and is no part of it; hidden files aside, which tools leave everywhere."""
    names = {path.name for path in artifact.root.iterdir()} - {MANIFEST, *artifact.manifest.files}
    return sorted(name for name in names if not name.startswith("."))


def check_statistics(artifact: Artifact) -> NDArray[np.float64]:
    """Read every row of ``neurons.parquet``, one cluster at a time; returns their ``global_mean``.

    Raises:
        CoreInferError: a row is no share of 1, a core set is not what it picks, or the clusters' statistics do not come
            to the global prior.
    """
    path = Layout(artifact.root).neurons
    artifact.core_set(GLOBAL)
    stored, mean = artifact.prior(GLOBAL), global_mean(artifact, artifact.core_set)
    if (off := np.abs(stored - mean) - STEP * (stored + mean) - LEAST).max() > 0:
        layer, neuron = np.unravel_index(int(off.argmax()), off.shape)
        raise CoreInferError(
            f"{path} holds a global prior that is not the clusters' mean (neuron {neuron} of layer {layer}: "
            f"{stored[layer, neuron]:.4g}, not {mean[layer, neuron]:.4g}): statistic, sizes or `shrink` are wrong; "
            "rebuild the artifact"
        )
    return mean


def global_mean(artifact: Artifact, look: Callable[[int], Any] = lambda cluster: None) -> NDArray[np.float64]:
    """The global prior as the clusters' rows imply it, (L, F): nearer to what was recorded than the stored one, since
    their roundings even out.

    A cluster of n passages is stored as (n * own + shrink * global) / (n + shrink), and the mean of all ``own`` is the
    global prior; so the stored ones, weighed by n + shrink, have it as their mean too. ``look`` is called with each
    cluster while its row is at hand.
    """
    out = np.zeros((artifact.manifest.layers, artifact.manifest.width))
    for cluster, size in enumerate(artifact.sizes.tolist()):
        look(cluster)
        out += (size + artifact.policy.shrink) * artifact.prior(cluster)
    made = artifact.manifest
    return np.asarray(out / (made.passages + made.clusters * artifact.policy.shrink))


def _report(artifact: Artifact) -> list[Checked]:
    made, layout = artifact.manifest, Layout(artifact.root)
    rows = counted((made.clusters + 1) * made.layers, "row")
    curve = len(artifact.calibration.get("curve", []))
    said = {
        layout.manifest: f"every field; size and sha256 of {counted(len(made.files), 'file')}",
        layout.clusters: f"{counted(made.clusters, 'unit centroid')}, no two equal; quantiles rise; "
        f"{made.passages:,} passages and {made.tokens:,} tokens in all, as the manifest says",
        layout.neurons: f"{rows} of {made.width} sum to 1; core sets are what they pick at keep "
        f"{made.default_keep:g}; the global prior is the clusters' mean",
        layout.layers: f"budgets at {counted(len(artifact.budget_grid), 'keep')} rise, and sum to them",
        layout.sensitivity: f"{made.layers} x {made.width} weights from 0 on",
        layout.calibration: f"policies' numbers in their ranges; a curve of {counted(curve, 'keep')}",
        layout.index: "holds the same centroids" if layout.index.is_file() else "not there; made anew when needed",
    }
    return [Checked(p.name, p.stat().st_size if p.is_file() else 0, found) for p, found in said.items()]
