"""Artifacts on the Hugging Face Hub: what comes from there is verified as any artifact, before a number is believed."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from coreinfer.artifact import Artifact
from coreinfer.caching import cache_folder
from coreinfer.errors import CoreInferError, in_words
from coreinfer.manifest import MANIFEST
from coreinfer.wording import cell, counted

CARD, MAP = "README.md", "map.png"
SHOWN = 20  # clusters in the card


def push_to_hub(artifact: str | Path, repo: str, private: bool = False, token: str | None = None) -> str:
    """Upload an artifact's files with a card and a map of its clusters; returns the address of the commit.

    Raises:
        CoreInferError: it is no whole artifact, or the Hub refuses.
    """
    from huggingface_hub import HfApi

    opened = Artifact.load(artifact)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in (MANIFEST, *opened.manifest.files):
            if (opened.root / name).exists():
                shutil.copy(opened.root / name, folder / name)
        _draw(opened, folder / MAP)
        (folder / CARD).write_text(card(opened, repo), "utf-8")
        Artifact.load(folder)  # what is sent is whole, whatever happened to the original meanwhile
        try:
            api = HfApi(token=token)
            api.create_repo(repo, private=private, exist_ok=True)
            done: Any = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="An artifact of coreinfer")
        except Exception as error:  # of whatever library it speaks HTTP with
            raise CoreInferError(
                f"the Hub does not take {repo!r} ({in_words(error)}): check the name, the network and `hf auth login`"
            ) from error
    return str(getattr(done, "commit_url", done))


def from_hub(repo: str, revision: str | None = None, token: str | None = None) -> Artifact:
    """An artifact of the Hub, in the cache as plain files; what is there of the revision is not downloaded again.

    Raises:
        CoreInferError: the Hub has none, or what it has is no whole artifact.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        commit = HfApi(token=token).model_info(repo, revision=revision).sha
        folder = cache_folder("artifacts") / repo.replace("/", "--") / str(commit)
        names = [MANIFEST, "*.parquet", "*.json", "*.faiss"]
        snapshot_download(repo, revision=commit, local_dir=folder, allow_patterns=names, token=token)
    except Exception as error:
        raise CoreInferError(
            f"the Hub gives no artifact {repo!r} ({in_words(error)}): check the name and the network"
        ) from error
    return Artifact.load(folder)


def _draw(artifact: Artifact, path: Path) -> None:
    from coreinfer.picture import draw_map

    made = artifact.manifest
    title = f"{counted(made.clusters, 'cluster')} of {counted(made.passages, 'passage')}"
    draw_map(artifact.centroids, artifact.sizes, artifact.terms, path, title)


def card(artifact: Artifact, repo: str) -> str:
    """README.md: what it is of, how to use it, what a keep costs, and its clusters."""
    made = artifact.manifest
    largest = sorted(range(made.clusters), key=lambda c: -int(artifact.sizes[c]))
    clusters = [f"| {c} | {artifact.sizes[c]:,} | {cell(', '.join(artifact.terms[c][:8]))} |" for c in largest[:SHOWN]]
    more = [f"\nand {made.clusters - SHOWN:,} more."] if made.clusters > SHOWN else []
    curve = [
        f"| {row['keep']:g} | {row['rise']:.4f} | {row['rise_high']:.4f} |"
        for row in artifact.calibration.get("curve", ())
    ]
    front = [f"base_model: {made.model.id}"] if made.model.id.count("/") == 1 else []
    losses = ["", "| keep | NLL rise, nats per token | at most (95%) |", "|---|---|---|", *curve] if curve else []
    return "\n".join([
        "---", *front, "library_name: coreinfer", "tags:", "- coreinfer", "---",
        f"# Which neurons of {cell(made.model.id)} each of {made.clusters:,} topics uses", "",
        f"Made by coreinfer from {made.passages:,} passages ({made.tokens:,} tokens), for {made.layers} layers of "
        f"{made.width:,} MLP neurons; embedder {cell(made.embedder.id)}; manifest sha256 {artifact.digest}.", "",
        "```python", "from coreinfer import Artifact, Engine", "",
        f'engine = Engine(Artifact.from_hub("{repo}"))', "```", "",
        f"![The clusters, close ones side by side]({MAP})", *losses, "",
        "| cluster | passages | terms |", "|---|---|---|", *clusters, *more, "",
    ])  # fmt: skip
