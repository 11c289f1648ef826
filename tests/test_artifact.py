"""The artifact: what is written is read back; what was changed, is missing or does not follow the format is refused."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.manifest import Layout, ModelIdentity, describe, verify
from coreinfer.match import make_index, nearest
from coreinfer.neurons import top, uniform_budgets
from coreinfer.settings import PolicySettings, StatisticSettings
from pipeline import index
from pipeline.cluster import Clustering

K, D, L, F = 5, 8, 3, 50
POLICY = PolicySettings(threshold=0.25, mixture=3)
FORMAT = Path(__file__).resolve().parent.parent / "artifacts" / "FORMAT.md"


def shares(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.random.default_rng(1).gamma(0.5, size=(count, L, F))
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def clustering() -> Clustering:
    rng = np.random.default_rng(0)
    centroids = rng.normal(size=(K, D)).astype(np.float32)
    centroids /= np.linalg.norm(centroids, axis=1, keepdims=True)
    return Clustering(centroids, np.arange(40) % K, rng.uniform(0.2, 0.9, 40).astype(np.float32))


def write(root: Path) -> None:
    root.mkdir()
    layout, made, all_shares = Layout(root), clustering(), shares(K + 1)
    index.write_neurons(layout, all_shares[0], all_shares[1:], keep=0.3)
    index.write_clusters(layout, made, np.arange(K), [[f"term{c}", "Wörter"] for c in range(K)], [[] for _ in range(K)])
    index.write_layers(layout, L, F)
    index.write_calibration(layout, POLICY, {"held_out_passages": 3})
    index.write_index(layout, made.centroids)
    index.write_manifest(
        layout, model=ModelIdentity("demo", "aa", "float32", 64), embedder=ModelIdentity("mini", "bb", "bfloat16", 32),
        layers=L, width=F, dimension=D, clusters=K, passages=40, tokens=400, statistic=StatisticSettings(),
        default_keep=0.3, seed=0, config={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("artifact") / "whole"
    write(root)
    return root


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def read_all(root: Path) -> None:
    opened = Artifact.load(root)
    for cluster in range(GLOBAL, K):
        opened.prior(cluster)


def refused(root: Path, *words: str) -> None:
    with pytest.raises(CoreInferError) as caught:
        read_all(root)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


def rewrite_manifest(root: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    change(manifest)
    (root / "manifest.json").write_text(json.dumps(manifest))


def rehash(root: Path) -> None:
    layout = Layout(root)
    rewrite_manifest(root, lambda m: m.update(files=describe((*layout.required, layout.index))))


def test_what_is_written_is_read_back(whole: Path) -> None:
    opened, made, all_shares = Artifact.load(whole), clustering(), shares(K + 1)
    assert np.array_equal(opened.centroids, made.centroids)
    assert opened.sizes.tolist() == made.sizes.tolist() == [8] * K
    assert np.array_equal(opened.quantiles, made.quantiles())
    assert opened.terms[2] == ["term2", "Wörter"]
    assert opened.policy == POLICY
    assert opened.manifest.statistic == StatisticSettings()
    for cluster in range(GLOBAL, K):
        assert np.allclose(opened.prior(cluster), all_shares[cluster + 1], rtol=2**-12, atol=0)


def test_core_set_is_the_top_of_the_stored_prior(whole: Path) -> None:
    opened = Artifact.load(whole)
    for cluster in range(GLOBAL, K):
        assert opened.core_set(cluster) == top(opened.prior(cluster), uniform_budgets(0.3, L, F))


def test_budgets_are_linear_between_the_keeps(whole: Path) -> None:
    opened = Artifact.load(whole)
    assert opened.budgets(0.4).tolist() == [20] * L
    assert opened.budgets(1.0).tolist() == [F] * L
    assert opened.budgets(0.42).tolist() == [21] * L
    assert opened.budgets(1e-6).tolist() == [2] * L  # that of the first keep, 0.05: round(2.5)


def test_faiss_file_holds_the_centroids(whole: Path) -> None:
    import faiss

    stored = faiss.read_index(str(whole / "index.faiss"))
    query = np.random.default_rng(3).normal(size=(4, D)).astype(np.float32)
    for mine, theirs in zip(
        nearest(stored, query, 2), nearest(make_index(clustering().centroids), query, 2), strict=True
    ):
        assert mine.clusters.tolist() == theirs.clusters.tolist()


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_is_refused_by_name(whole: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(p for p in whole.iterdir() if p.name != "manifest.json")))
    good = path.read_bytes()
    at, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    cut = data.draw(st.booleans())
    try:
        path.write_bytes(good[:at] if cut else good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
        refused(whole, path.name, "sha256")
    finally:
        path.write_bytes(good)
    verify(whole)


@pytest.mark.parametrize("name", ["clusters.parquet", "neurons.parquet", "layers.parquet", "calibration.json"])
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / name).unlink()
    refused(copy, name, "missing")


def test_a_missing_index_is_rebuilt(copy: Path) -> None:
    (copy / "index.faiss").unlink()
    assert Artifact.load(copy).manifest.clusters == K


def test_no_artifact_and_no_json(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "build-clusters")
    for junk in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"{}", b"[" * 100_000):
        (tmp_path / "manifest.json").write_bytes(junk)
        refused(tmp_path, "manifest")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda m: m.update(version=2), "version 2"),
        (lambda m: m.update(format="other"), "other"),
        (lambda m: m.pop("width"), "width"),
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.update(statistic={"kind": "median"}), "median"),
        (lambda m: m["files"].pop("neurons.parquet"), "neurons.parquet"),
        (lambda m: m["files"].update({"../outside": {"bytes": 1, "sha256": "0"}}), "outside"),
        (lambda m: m["files"].update({"neurons.parquet": None}), "neurons.parquet"),
        (lambda m: m.update(files=[1]), "manifest"),
        (lambda m: m.update(clusters=K + 1), "format"),
        (lambda m: m.update(clusters="many"), "clusters"),
        (lambda m: m.update(layers=10**12), "layers"),
        (lambda m: m.update(width=F + 1), ""),
        (lambda m: m.update(layers=L + 1), ""),
    ],
)
def test_a_manifest_that_does_not_fit(copy: Path, change: Callable[[dict[str, Any]], object], word: str) -> None:
    rewrite_manifest(copy, change)
    refused(copy, word)


def test_right_hashes_do_not_make_right_content(copy: Path) -> None:
    table = pq.read_table(copy / "clusters.parquet")
    layers = pq.read_table(copy / "layers.parquet")
    calibration = (copy / "calibration.json").read_text()
    broken: dict[str, list[Callable[[], object]]] = {
        "clusters.parquet": [
            lambda: pq.write_table(table.drop_columns(["centroid"]), copy / "clusters.parquet"),
            lambda: pq.write_table(table.slice(1), copy / "clusters.parquet"),
            lambda: (copy / "clusters.parquet").write_bytes(b"PAR1 and nothing"),
        ],
        "layers.parquet": [lambda: pq.write_table(layers.slice(1), copy / "layers.parquet")],
        "calibration.json": [
            lambda: (copy / "calibration.json").write_text("{}"),
            lambda: (copy / "calibration.json").write_text(calibration.replace("threshold", "thresh")),
        ],
    }
    for name, faults in broken.items():
        good = (copy / name).read_bytes()
        for fault in faults:
            fault()
            rehash(copy)
            refused(copy, "rebuild")
        (copy / name).write_bytes(good)
        rehash(copy)
    assert Artifact.load(copy).manifest.clusters == K


def test_row_groups_in_another_order_are_refused(copy: Path) -> None:
    path = copy / "neurons.parquet"
    with pq.ParquetFile(path) as file:
        groups = [file.read_row_group(i) for i in range(file.num_row_groups)]
    pq.write_table(pa.concat_tables(groups[::-1]), path, row_group_size=L, write_page_checksum=True)
    rehash(copy)
    refused(copy, "neurons.parquet", "rebuild")


def test_the_specifications_example_agrees(whole: Path) -> None:
    code = re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code[0], names)
    opened = Artifact.load(whole)
    for seed in range(5):
        vector = np.random.default_rng(seed).normal(size=D).astype(np.float32)
        vector /= np.linalg.norm(vector)
        match = nearest(make_index(opened.centroids), vector[None], POLICY.mixture)[0]
        wanted = top(opened.prior_of(match.clusters, match.similarities), opened.budgets(0.37))
        read = names["similarity_set"](whole, vector, 0.37)
        assert [ids.tolist() for ids in read] == [ids.tolist() for ids in wanted.layers]
