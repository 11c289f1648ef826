"""What the small tables of an artifact hold, read and checked: clusters, budgets, weights.

Every function raises what parsers raise, ``ValueError`` among it; ``Artifact.load`` makes one line of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coreinfer.json_fields import CONTROL
from coreinfer.manifest import Manifest
from coreinfer.own_files import Content
from coreinfer.tables import LAYERS, clusters_schema, matrix, numbers, read_table, sensitivity_schema, words

MOST_KEEPS = 1000  # of the grid
ROUNDING = 1e-3  # of norms and cosines in float32, with room


@dataclass(frozen=True)
class Clusters:
    """``clusters.parquet``: see ``Artifact``."""

    centroids: NDArray[np.float32]
    sizes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    quantiles: NDArray[np.float32]
    terms: list[list[str]]
    examples: list[list[str]]


def read_clusters(content: Content, manifest: Manifest) -> Clusters:
    """A row a cluster: unit centroids, no two of them equal, and passages and tokens that are the manifest's."""
    table = read_table(content, clusters_schema(manifest.dimension), manifest.clusters)
    if table.column("cluster").to_pylist() != list(range(manifest.clusters)):
        raise ValueError(f"{content.name} does not hold clusters 0 to {manifest.clusters - 1} in this order")
    sizes = _counts(table, "size", 1, manifest.passages, content.name)
    tokens = _counts(table, "tokens", 0, manifest.tokens, content.name)
    quantiles = matrix(table, "similarity_quantiles", manifest.clusters)
    if not ((np.abs(quantiles) <= 1 + ROUNDING).all() and (np.diff(quantiles, axis=1) >= 0).all()):  # NaN is not
        raise ValueError(f"{content.name} holds similarity_quantiles that do not rise, or are no cosines")
    centroids, terms = _centroids(table, manifest, content.name), words(table, "terms")
    if any(CONTROL.search(term) for row in terms for term in row):
        raise ValueError(f"{content.name} holds terms that are no words: they would command a terminal")
    return Clusters(centroids, sizes, tokens, quantiles, terms, words(table, "examples"))


def _counts(table: Any, name: str, least: int, total: int, file: str) -> NDArray[np.int64]:
    """A column of counts, whose sum the manifest knows."""
    values = table.column(name).to_pylist()
    if min(values) < least or sum(values) != total:  # Python's sum: int64 would run over
        raise ValueError(f"{file} holds a {name} of {min(values)}, and {sum(values)} in all, the manifest {total}")
    return np.asarray(values, np.int64)


def _centroids(table: Any, manifest: Manifest, file: str) -> NDArray[np.float32]:
    centroids = matrix(table, "centroid", manifest.clusters)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(centroids, axis=1)
    if not np.allclose(lengths, 1, atol=ROUNDING):
        raise ValueError(f"{file} holds centroids that are no unit vectors")
    if len({row.tobytes() for row in centroids}) < len(centroids):
        raise ValueError(f"{file} holds two equal centroids: nothing could belong to the second")
    return centroids


def read_budgets(content: Content, manifest: Manifest) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """``layers.parquet`` -> the grid of keeps (n,) and the budgets (n, L).

    Both rise, to 1 and to all neurons; the budgets of a keep sum to that share of all neurons.
    """
    layers, width = manifest.layers, manifest.width
    table = read_table(content, LAYERS, range(layers, layers * MOST_KEEPS + 1))
    columns = (numbers(column.combine_chunks()).astype(np.float64) for column in table.columns)
    keep, layer, budget = (column.reshape(-1, layers) for column in columns)
    grid = keep[:, 0]
    rising = grid[0] > 0 and grid[-1] == 1 and (np.diff(grid) > 0).all() and (keep == grid[:, None]).all()
    if not rising or (layer != np.arange(layers)).any():
        raise ValueError(f"{content.name} is not by keep, rising to 1, and then by layer")
    if not ((budget >= 0) & (budget <= width)).all():
        raise ValueError(f"{content.name} holds budgets that are not from 0 to {width}")
    # A layer's budget may fall by one where the others' roundings take its last neuron.
    if (np.diff(budget, axis=0) < -1).any() or (np.abs(budget.sum(1) - grid * layers * width) > layers).any():
        raise ValueError(f"{content.name} holds budgets that fall with keep, or do not sum to it")
    return grid, budget


def read_sensitivity(content: Content, manifest: Manifest) -> NDArray[np.float32]:
    """``sensitivity.parquet`` -> a weight for each neuron, (L, F)."""
    table = read_table(content, sensitivity_schema(manifest.width), manifest.layers)
    weights = matrix(table, "weight", manifest.layers)
    if table.column("layer").to_pylist() != list(range(manifest.layers)):
        raise ValueError(f"{content.name} does not hold layers 0 to {manifest.layers - 1} in this order")
    if not ((weights >= 0) & (weights < 1e30)).all():  # NaN is neither
        raise ValueError(f"{content.name} holds weights that are no numbers from 0 on")
    return weights
