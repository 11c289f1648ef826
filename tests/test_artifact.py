"""The artifact: what is written is read back; what was changed, is missing or does not follow the format is refused."""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import reduce
from operator import methodcaller
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.manifest import Layout, ModelIdentity, describe, verify
from coreinfer.match import make_index, nearest
from coreinfer.neurons import top, uniform_budgets
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.settings import PolicySettings, StatisticSettings
from pipeline import index
from pipeline.cluster import Clustering

Change = Callable[[dict[str, Any]], object]
Fault = Callable[[Path], object]
K, D, L, F = 5, 8, 3, 50
POLICY = PolicySettings(threshold=0.25, mixture=3)
FORMAT = Path(__file__).resolve().parent.parent / "artifacts" / "FORMAT.md"


def shares(count: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    raw = np.random.default_rng(1).gamma(0.5, size=(count, L, F))
    return np.asarray(raw / raw.sum(-1, keepdims=True))


def clustering() -> Clustering:
    rng = np.random.default_rng(0)
    centroids = unit(rng.normal(size=(K, D)).astype(np.float32))
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
        assert opened.core_set(cluster) == top(opened.prior(cluster), uniform_budgets(0.3, L, F))


def test_budgets_are_linear_between_the_keeps(whole: Path) -> None:
    opened = Artifact.load(whole)
    for keep, budget in ((0.4, 20), (1.0, F), (0.42, 21), (1e-6, 2)):  # below the first keep, its own: round(2.5)
        assert opened.budgets(keep).tolist() == [budget] * L


def test_faiss_file_holds_the_centroids(whole: Path) -> None:
    import faiss

    stored, centroids = faiss.read_index(str(whole / "index.faiss")), clustering().centroids
    query = np.random.default_rng(3).normal(size=(4, D)).astype(np.float32)
    for match, cosines in zip(nearest(stored, query, 2), query @ centroids.T, strict=True):
        assert match.clusters.tolist() == np.argsort(-cosines)[:2].tolist()
        assert np.allclose(match.similarities, np.sort(cosines)[:-3:-1], atol=1e-6)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_changed_byte_is_refused_by_name(whole: Path, data: st.DataObject) -> None:
    """In the manifest, which nothing hashes, it may pass; a fault then is still one line."""
    path = data.draw(st.sampled_from(sorted(whole.iterdir())))
    good = path.read_bytes()
    at, flip = data.draw(st.integers(0, len(good) - 1)), data.draw(st.integers(1, 255))
    try:
        path.write_bytes(
            good[:at] if data.draw(st.booleans()) else good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :]
        )
        if path.name != "manifest.json":
            refused(whole, path.name, "sha256")
        with suppress(CoreInferError):
            read_all(whole)
    finally:
        path.write_bytes(good)
    verify(whole)


@pytest.mark.parametrize("name", ["clusters.parquet", "neurons.parquet", "layers.parquet", "calibration.json"])
def test_a_missing_file_is_refused_by_name(copy: Path, name: str) -> None:
    (copy / "index.faiss").unlink()  # derived: nobody misses it
    read_all(copy)
    (copy / name).unlink()
    refused(copy, name, "missing")


def test_no_artifact_and_no_json(tmp_path: Path) -> None:
    refused(tmp_path, str(tmp_path), "build-clusters")
    for junk in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'"text"', b"{}", b"[" * 100_000):
        (tmp_path / "manifest.json").write_bytes(junk)
        refused(tmp_path, "manifest")


def put(*keys: str, value: Any) -> Change:
    return lambda m: reduce(dict.__getitem__, keys[:-1], m).update({keys[-1]: value})


CHANGES: list[tuple[Change, str]] = [
    (put("version", value=2), "version 2"), (put("format", value="other"), "other"), (put("extra", value=1), "extra"),
    (lambda m: m.pop("width"), "width"), (lambda m: m["files"].pop("neurons.parquet"), "neurons.parquet"),
    (put("statistic", value={"kind": "median"}), "median"), (put("files", value=[1]), "manifest"),
    *((put("files", name, value={"bytes": 1, "sha256": "0"}), "outside")
      for name in ("../outside", "/outside", "a/../outside", "outside", "outside" * 50, "outside\0")),
    (put("files", "neurons.parquet", value=None), "neurons.parquet"), (put("clusters", value="many"), "clusters"),
    *((put(name, value=n), "") for name in ("clusters", "dimension", "layers", "width") for n in (7, 10**9, 10**12)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), CHANGES)
def test_a_manifest_that_does_not_fit(copy: Path, change: Change, word: str) -> None:
    rewrite_manifest(copy, change)
    refused(copy, word)


def table(name: str, change: Callable[[Any], Any], rows: int | None = None) -> Fault:
    def fault(root: Path) -> None:
        path, groups = root / f"{name}.parquet", rows or (L if name == "neurons" else 1000)
        pq.write_table(change(pq.read_table(path)), path, row_group_size=groups, write_page_checksum=True)

    return fault


def cells(name: str, column: str, value: Any) -> Fault:
    def changed(old: Any) -> Any:
        at, field = old.schema.get_field_index(column), old.schema.field(column)
        return old.set_column(at, field, pa.array([value] * len(old), field.type))

    return table(name, changed)


def text(name: str, content: str) -> Fault:
    return lambda root: (root / name).write_text(content)


def policy(**changes: Any) -> Fault:
    return text("calibration.json", json.dumps({"policy": {**asdict(POLICY), **changes}}))


TABLES, NAN = ("clusters", "neurons", "layers"), float("nan")
BROKEN: list[Fault] = [
    *(table("clusters", methodcaller("drop_columns", [name])) for name in ("cluster", "centroid", "size", "terms")),
    *(table("neurons", methodcaller("drop_columns", [name])) for name in ("cluster", "layer", "statistic", "core")),
    *(table(name, methodcaller("slice", *part)) for name in TABLES for part in ((1,), (0, 0))),
    *(table(name, lambda t: t.take(list(range(len(t)))[::-1])) for name in TABLES),
    *(table(name, lambda t: t, rows=2) for name in TABLES), text("clusters.parquet", "PAR1 and nothing"),
    table("clusters", lambda t: t.append_column("extra", t["size"])), cells("clusters", "terms", [None]),
    table("neurons", lambda t: t.take([i // L * L + (i + 1) % L for i in range(len(t))])),
    *(cells("clusters", "centroid", [x] * D) for x in (0.0, 1.0, NAN, None)),
    *(cells("clusters", name, None) for name in ("centroid", "size", "similarity_quantiles", "terms", "examples")),
    *(cells("neurons", "statistic", x) for x in ([0.0] * F, [1.0] * F, [NAN] * F, [-1.0, 2.0] + [0.0] * (F - 2), None)),
    *(cells("neurons", "core", x) for x in (None, b"", b"x" * 6, b"x" * 8)),
    *(cells("layers", "budget", x) for x in (-1, F + 1, None)), *(cells("layers", "keep", x) for x in (0.5, NAN, None)),
    *(text("calibration.json", x) for x in ("", "{}", "[]", "null", '{"policy": {"auto": "hybrid"}}', "[" * 100_000)),
    policy(auto="other"), policy(auto=["hybrid"]), policy(extra=1), policy(threshold=None), policy(n0=-1.0),
    *(policy(mixture=m) for m in (0, 2.5, "3", None)), *(policy(sharpness=x) for x in (NAN, 1e999, "12")),
]  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_right_hashes_do_not_make_right_content(copy: Path, fault: Fault) -> None:
    fault(copy)
    layout = Layout(copy)
    rewrite_manifest(copy, put("files", value=describe((*layout.required, layout.index))))
    refused(copy, "rebuild")


def test_a_table_that_claims_too_much_is_not_read(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.artifact.MOST_VALUES", K * D - 1)  # lists count by their elements
    refused(whole, "clusters.parquet", "claims")


def test_what_is_kept_is_not_mistaken(whole: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Artifact.load(copy)
    with pytest.raises(ValueError, match="read-only"):
        opened.prior(0)[0, 0] = 1
    for cluster in (-2, K):
        with pytest.raises(CoreInferError, match=f"no cluster {cluster}"):
            opened.prior(cluster)
    table("neurons", lambda t: t.take(list(range(len(t)))[::-1]))(copy)
    with pytest.raises(CoreInferError, match="load the artifact again"):
        opened.prior(1)
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(13, "Permission denied")))
    refused(whole, "Permission denied", "copy")


@pytest.mark.parametrize("place", ["tiny", "demo"])
def test_the_specifications_example_agrees(whole: Path, place: str) -> None:
    code = re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code[0], names)
    opened = Artifact.load(whole if place == "tiny" else DEMO_CLUSTERS)
    for seed in range(3):
        vector = unit(np.random.default_rng(seed).normal(size=(1, opened.manifest.dimension)).astype(np.float32))
        match = nearest(make_index(opened.centroids), vector, opened.policy.mixture)[0]
        wanted = top(opened.prior_of(match.clusters, match.similarities), opened.budgets(0.37))
        read = names["similarity_set"](opened.root, vector[0], 0.37)
        assert [ids.tolist() for ids in read] == [ids.tolist() for ids in wanted.layers]
