"""The artifact: what is written is read back; a file that was changed, is missing or was replaced is refused."""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_artifacts import POLICY, SIZES, D, F, K, L, clustering, priors, read_all, refused, shares
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.embedder import unit
from coreinfer.errors import CoreInferError
from coreinfer.match import make_index, nearest
from coreinfer.neurons import top, uniform_budgets
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.settings import StatisticSettings
from coreinfer.verified import verify

FORMAT = Path(__file__).resolve().parent.parent / "artifacts" / "FORMAT.md"


def test_what_is_written_is_read_back(whole: Path) -> None:
    opened, made, all_priors = Artifact.load(whole), clustering(), priors()
    assert np.array_equal(opened.centroids, made.centroids)
    assert opened.sizes.tolist() == made.sizes.tolist() == list(SIZES)
    assert np.array_equal(opened.quantiles, made.quantiles())
    assert opened.terms[2] == ["term2", "Wörter"]
    assert opened.policy == POLICY
    assert opened.manifest.statistic == StatisticSettings()
    for cluster in range(GLOBAL, K):
        assert np.allclose(opened.prior(cluster), all_priors[cluster + 1], rtol=2**-12, atol=0)
        assert opened.core_set(cluster) == top(opened.prior(cluster), uniform_budgets(0.3, L, F))


def test_budgets_are_linear_from_nothing_to_everything(whole: Path) -> None:
    opened = Artifact.load(whole)
    for keep, budget in ((0.4, 20), (1.0, F), (0.42, 21), (0.05, 2), (0.025, 1), (1e-6, 1)):  # 0.05 * F is 2.5
        assert opened.budgets(keep).tolist() == [budget] * L


def test_doubt_is_measured_where_it_can_count(whole: Path) -> None:
    """Of what the prompt's own core set holds, the prior's misses so much; worked out by sets of ids."""
    opened, (prior, prompt) = Artifact.load(whole), shares(2)
    kept = [[set(np.argsort(-row, kind="stable")[:15]) for row in part] for part in (prior, prompt)]
    held = [np.mean([row[list(ids)].sum() for row, ids in zip(prompt, sets, strict=True)]) for sets in kept]
    doubt = float(1 - held[0] / held[1])
    assert opened.doubt(3 * prompt, prior) == pytest.approx(doubt)
    assert doubt > 0.2
    assert opened.worth("hybrid", 0.5, prior, prompt, 16) == POLICY.n0
    wary = replace(opened, policy=replace(POLICY, doubt=0.1, doubt_fall=1.0))
    assert wary.worth("hybrid", 0.5, prior, prompt, 64) == pytest.approx(POLICY.n0 * (0.1 / doubt) ** 3)
    with patch.object(Artifact, "doubt", side_effect=AssertionError):
        assert opened.worth("hybrid", 0.5, prior, prompt, 64) == POLICY.n0
        assert wary.worth("hybrid", 0.5, prior, prompt, 6) == POLICY.n0  # so short a prompt usually knows nothing


@pytest.mark.parametrize("keep", [0.001, 0.01, 0.03])
def test_below_the_grid_what_is_said_is_what_is_kept(keep: float) -> None:
    opened = Artifact.load(DEMO_CLUSTERS)
    budgets = opened.budgets(keep)
    assert budgets.tolist() == [round(keep * 2560)] * 6
    assert top(opened.prior(0), budgets).keep == pytest.approx(keep, abs=1 / 2560)


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


def test_what_is_kept_is_not_mistaken(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Artifact.load(whole)
    with pytest.raises(ValueError, match="read-only"):
        opened.prior(0)[0, 0] = 1
    for cluster in (-2, K):
        with pytest.raises(CoreInferError, match=f"no cluster {cluster}"):
            opened.prior(cluster)
    monkeypatch.setattr(Path, "open", Mock(side_effect=PermissionError(13, "Permission denied")))
    refused(whole, "Permission denied", "copy")


def swapped(path: Path) -> None:
    """Another file of the same size takes its place, made at the same time."""
    facts, other = path.stat(), path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(path)


def written_to(path: Path) -> None:
    """The same file, other content of the same size."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\x00" * 64)
    os.utime(path, ns=(0, 0))


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\x00")


@pytest.mark.parametrize("replacement", [swapped, written_to, longer])
def test_a_replacement_after_opening_is_noticed(copy: Path, replacement: Callable[[Path], None]) -> None:
    opened = Artifact.load(copy)
    before = opened.prior(0)
    replacement(copy / "neurons.parquet")
    assert opened.prior(0) is before  # read from what was verified
    for read in (opened.prior, opened.core_set):
        with pytest.raises(CoreInferError, match="was replaced after it was opened: load the artifact again"):
            read(1)


@pytest.mark.parametrize("place", ["tiny", "demo"])
def test_the_specifications_example_agrees(whole: Path, place: str) -> None:
    code = re.findall(r"```python\n(.*?)```", FORMAT.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code[0], names)
    opened = Artifact.load(whole if place == "tiny" else DEMO_CLUSTERS)
    for seed in range(3):
        vector = unit(np.random.default_rng(seed).normal(size=(1, opened.manifest.dimension)).astype(np.float32))
        match = nearest(make_index(opened.centroids), vector, opened.policy.mixture)[0]
        for keep in (0.37, 0.012):  # within the grid, and below it
            wanted = top(opened.prior_of(match.clusters, match.similarities), opened.budgets(keep))
            read = names["similarity_set"](opened.root, vector[0], keep)
            assert [ids.tolist() for ids in read] == [ids.tolist() for ids in wanted.layers]
