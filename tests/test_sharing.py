"""Artifacts on the Hub, whose library is a fake here: folders in place of repositories."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest

from coreinfer import Artifact, CoreInferError
from coreinfer.paths import DEMO_CLUSTERS


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the fake's repositories lie, by name."""
    place = tmp_path / "hub"

    class Api:
        def __init__(self, token: str | None = None) -> None:
            self.token = token

        def create_repo(self, repo: str, private: bool, exist_ok: bool) -> None:
            if repo.startswith("denied/"):
                raise ConnectionError("403 Forbidden")
            (place / repo).mkdir(parents=True, exist_ok=exist_ok)

        def upload_folder(self, repo_id: str, folder_path: Path, commit_message: str) -> Any:
            shutil.copytree(folder_path, place / repo_id, dirs_exist_ok=True)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

        def model_info(self, repo: str, revision: str | None) -> Any:
            if not (place / repo).exists():
                raise LookupError("404 Not Found")
            return SimpleNamespace(sha="c0ffee")

    def snapshot(repo: str, revision: str, local_dir: Path, allow_patterns: list[str], token: str | None) -> None:
        assert revision == "c0ffee"
        local_dir.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in (place / repo).glob(pattern):
                shutil.copy(file, local_dir)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return place


def test_there_and_back(hub: Path) -> None:
    mine = Artifact.load(DEMO_CLUSTERS)
    assert mine.push_to_hub("someone/clusters") == "https://hub/someone/clusters/commit/1"
    names = {path.name for path in (hub / "someone/clusters").iterdir()}
    assert names == {"README.md", "map.png", "manifest.json", *mine.manifest.files}
    said = (hub / "someone/clusters" / "README.md").read_text("utf-8")
    assert 'Artifact.from_hub("someone/clusters")' in said
    assert f"| {mine.calibration['curve'][0]['keep']:g} |" in said
    largest = int(np.argmax(mine.sizes))
    assert f"| {largest} | {mine.sizes[largest]:,} | {', '.join(mine.terms[largest][:8])} |" in said
    found = Artifact.from_hub("someone/clusters")
    assert found.manifest == mine.manifest
    assert np.array_equal(found.prior(3), mine.prior(3))


def test_what_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.picture.draw_map", lambda *parts: parts[3].write_bytes(b"a map"))
    with pytest.raises(CoreInferError, match=r"the Hub gives no artifact 'no/such' .*404"):
        Artifact.from_hub("no/such")
    with pytest.raises(CoreInferError, match=r"the Hub does not take 'denied/x' .*403"):
        Artifact.load(DEMO_CLUSTERS).push_to_hub("denied/x")
    Artifact.load(DEMO_CLUSTERS).push_to_hub("someone/clusters")
    file = hub / "someone/clusters" / "neurons.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(CoreInferError, match="was changed after the build"):
        Artifact.from_hub("someone/clusters")
