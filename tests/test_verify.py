"""``verify`` and what it looks at: what is right is listed, and a fault is one line that names the file."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import fine
from conftest import run_cli
from small_artifacts import L, cells, rewrite_manifest
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.contents import read_clusters
from coreinfer.errors import CoreInferError
from coreinfer.flat_index import check_index
from coreinfer.layout import Layout
from coreinfer.manifest import describe
from coreinfer.own_files import Content
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.upkeep.verifying import global_mean, verified
from coreinfer.verified import verify as hashed

FILES = {
    "manifest.json", "clusters.parquet", "neurons.parquet", "layers.parquet", "sensitivity.parquet",
    "calibration.json", "index.faiss",
}  # fmt: skip


def test_the_demo_is_what_it_says_it_is() -> None:
    said = fine(run_cli("verify", DEMO_CLUSTERS)).out
    assert all(name in said for name in FILES)
    (facts,) = fine(run_cli("verify", DEMO_CLUSTERS, "--json")).rows
    assert {row["file"] for row in facts["checked"]} == FILES
    assert all(row["bytes"] == (DEMO_CLUSTERS / row["file"]).stat().st_size for row in facts["checked"])


def test_its_models_are_looked_at_where_they_are_named(artifact: Path, shop: Path) -> None:
    (facts,) = fine(run_cli("verify", artifact, "--model", "demo", "--json", "-q")).rows
    assert {row["file"] for row in facts["checked"]} == {*FILES, "model", "embedder"}
    for wrong, word in (("--model", "llama"), ("--embedder", "bert")):
        ended = run_cli("verify", artifact, wrong, shop / word, "-q")
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert word in ended.err


def test_an_index_need_not_be_there(copy: Path) -> None:
    (copy / "index.faiss").unlink()
    _, found = verified(copy)
    assert {one.file: one.bytes for one in found}["index.faiss"] == 0
    rewrite_manifest(copy, lambda m: m["files"].pop("index.faiss"))
    verified(copy)
    (copy / "index.faiss").write_bytes(b"IxFI")
    with pytest.raises(CoreInferError, match=r"does not list index.faiss"):
        verified(copy)


def test_what_only_verify_sees(copy: Path) -> None:
    """Every row is a share of 1, and its core set is what it picks; but the rows are not of these clusters."""

    def fault(root: Path) -> None:
        import pyarrow.parquet as pq

        table = pq.read_table(root / "neurons.parquet")
        order = [*range(L), *range(2 * L, 3 * L), *range(L, 2 * L), *range(3 * L, len(table))]
        moved = table.take(order).set_column(0, table.schema.field(0), table.column(0))
        path = root / "neurons.parquet"
        pq.write_table(moved, path, row_group_size=L, compression="zstd", write_page_checksum=True)

    fault(copy)
    layout = Layout(copy)
    rewrite_manifest(copy, lambda m: m.update(files=describe((*layout.required, layout.index))))
    opened = Artifact.load(copy)
    assert opened.core_set(0) == opened.core(opened.prior(0), 0.3)
    with pytest.raises(CoreInferError, match=r"neurons.parquet holds a global prior that is not the clusters' mean"):
        verified(copy)


def test_the_global_prior_is_the_mean_of_what_clusters_recorded(whole: Path) -> None:
    opened = Artifact.load(whole)
    assert np.allclose(global_mean(opened), opened.prior(GLOBAL), rtol=2**-11, atol=0)


def test_faiss_writes_what_is_checked_byte_by_byte(whole: Path, tmp_path: Path) -> None:
    import faiss

    centroids = Artifact.load(whole).centroids
    made = faiss.IndexFlatIP(centroids.shape[1])
    made.add(centroids)
    faiss.write_index(made, str(tmp_path / "index.faiss"))
    stored = Content("index.faiss", (tmp_path / "index.faiss").read_bytes())
    check_index(stored, centroids)
    with pytest.raises(ValueError, match="other centroids"):
        check_index(stored, -centroids)


def test_a_fault_names_its_file(copy: Path) -> None:
    cells("layers", "budget", 0)(copy)
    layout = Layout(copy)
    rewrite_manifest(copy, lambda m: m.update(files=describe((*layout.required, layout.index))))
    ended = run_cli("verify", copy)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: {copy / 'layers.parquet'} does not follow the format")


def test_all_damaged_files_are_named_at_once(copy: Path) -> None:
    (copy / "layers.parquet").unlink()
    for name in ("clusters.parquet", "calibration.json"):
        (copy / name).write_bytes((copy / name).read_bytes()[::-1])
    ended = run_cli("verify", copy)
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: 3 files of {copy} are damaged (")
    assert ended.err.endswith("): copy the artifact again or rebuild it\n")
    changed = "was changed after the build (its sha256 differs)"
    for words in (f"clusters.parquet {changed}", f"calibration.json {changed}", "layers.parquet is missing"):
        assert words in ended.err


def test_what_is_no_part_of_an_artifact_is_said(copy: Path) -> None:
    assert "no part of" not in fine(run_cli("verify", copy)).err
    (copy / "old").mkdir()
    for name in ("notes.txt", ".gitattributes"):
        (copy / name).write_text("mine")
    said = fine(run_cli("verify", copy))
    assert said.err == f"{copy} also holds what is no part of the artifact, and was not looked at: notes.txt, old\n"
    assert fine(run_cli("verify", copy, "-q")).err == ""


def test_terms_are_read_as_they_were_written(whole: Path) -> None:
    """They are read encoded; equal terms of two clusters, an empty list, and letters of several bytes come through."""
    made = json.loads((whole / "manifest.json").read_text())
    manifest, _, contents, _ = hashed(whole)
    found = read_clusters(contents["clusters.parquet"], manifest)
    assert found.terms == [[f"term{c}", "Wörter"] for c in range(made["clusters"])]
    assert found.examples == [[]] * made["clusters"]
