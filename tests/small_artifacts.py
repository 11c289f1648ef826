"""A small artifact by the real writers, random numbers in it, and ways to spoil it."""

import json
import shutil
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import ModelIdentity
from coreinfer.neurons import shrink, top, uniform_budgets
from coreinfer.settings import PolicySettings, StatisticSettings
from pipeline import index
from pipeline.data import Clustering

Change = Callable[[dict[str, Any]], object]
Fault = Callable[[Path], object]
K, D, L, F = 5, 8, 3, 50
SIZES = (4, 6, 8, 10, 12)  # passages of each cluster; of equal ones, nothing tells how far they were shrunk
POLICY = PolicySettings(threshold=0.25, mixture=3)


def shares(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.random.default_rng(1).gamma(0.5, size=(count, L, F))
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def priors() -> np.ndarray[Any, np.dtype[np.float64]]:
    """The global prior, then each cluster's, drawn to it as a build would: (K + 1, L, F)."""
    each = shares(K)
    whole = np.average(each, 0, SIZES)
    return np.stack([whole, *(shrink(one, n, whole, POLICY.shrink) for one, n in zip(each, SIZES, strict=True))])


def clustering() -> Clustering:
    rng = np.random.default_rng(0)
    centroids = unit(rng.normal(size=(K, D)).astype(np.float32))
    return Clustering(centroids, np.repeat(np.arange(K), SIZES), rng.uniform(0.2, 0.9, 40).astype(np.float32))


def write(root: Path) -> None:
    root.mkdir()
    layout, made = Layout(root), clustering()
    index.write_neurons(layout.neurons, iter(priors()), lambda prior: top(prior, uniform_budgets(0.3, L, F)), F)
    index.write_sensitivity(layout, np.ones((L, F)))
    terms = [[f"term{c}", "Wörter"] for c in range(K)]
    index.write_clusters(layout, made, np.arange(60, 60 + 10 * K, 10), terms, [[] for _ in range(K)])
    index.write_layers(layout, index.uniform_table(L, F))
    index.write_calibration(layout, POLICY, {"held_out_passages": 3})
    index.write_index(layout, made.centroids)
    index.write_manifest(
        layout, model=ModelIdentity("demo", "a" * 64, "c" * 64, "float32", 64),
        embedder=ModelIdentity("mini", "b" * 64, "d" * 64, "bfloat16", 32),
        layers=L, width=F, dimension=D, clusters=K, passages=40, tokens=400, statistic=StatisticSettings(),
        default_keep=0.3, seed=0, config={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    write(root := tmp_path_factory.mktemp("artifact") / "whole")
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def read_all(root: Path) -> None:
    opened = Artifact.load(root)
    for cluster in range(GLOBAL, K):
        opened.prior(cluster)
        opened.core_set(cluster)
    opened.budgets(0.4)


def refused(root: Path, *words: str) -> None:
    with pytest.raises(CoreInferError) as caught:
        read_all(root)
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in words), caught.value


def rewrite_manifest(root: Path, change: Change) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


def put(*keys: str, value: Any) -> Change:
    return lambda m: reduce(dict.__getitem__, keys[:-1], m).update({keys[-1]: value})


def table(name: str, change: Callable[[Any], Any], rows: int | None = None) -> Fault:
    def fault(root: Path) -> None:
        path, groups = root / f"{name}.parquet", rows or (L if name == "neurons" else 1000)
        pq.write_table(
            change(pq.read_table(path)), path, row_group_size=groups, write_page_checksum=True, compression="zstd"
        )

    return fault


def cells(name: str, column: str, value: Any) -> Fault:
    def changed(old: Any) -> Any:
        at, field = old.schema.get_field_index(column), old.schema.field(column)
        return old.set_column(at, field, pa.array([value] * len(old), field.type))

    return table(name, changed)
