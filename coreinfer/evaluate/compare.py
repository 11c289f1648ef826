"""Another artifact of the same model in the same run: its clusters and priors on the same texts."""

from collections.abc import Sequence
from pathlib import Path

from coreinfer.artifact import Artifact
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError


def open_compared(paths: Sequence[Path], engine: Engine, device: str) -> list[tuple[str, Engine]]:
    """The artifacts by name, which is the folder's, or the path where two folders share it. Their LM never loads.

    Raises:
        CoreInferError: no artifact, or one of another model.
    """
    names = [path.resolve().name for path in paths]
    unique = [str(path) if names.count(name) > 1 else name for path, name in zip(paths, names, strict=True)]
    return [(name, _open(path, engine, device)) for name, path in dict(zip(unique, paths, strict=True)).items()]


def _open(path: Path, engine: Engine, device: str) -> Engine:
    artifact = Artifact.load(path)
    mine, theirs = engine.artifact.manifest, artifact.manifest
    if (mine.model.weights, mine.model.setup) != (theirs.model.weights, theirs.model.setup):
        raise CoreInferError(
            f"--compare {path} was built with the model {theirs.model.id!r}, {engine.artifact.root} with "
            f"{mine.model.id!r} of other weights or settings: compare artifacts of one model"
        )
    other = Engine(artifact, device=device)
    same = (mine.embedder.weights, mine.embedder.setup) == (theirs.embedder.weights, theirs.embedder.setup)
    if same:
        other.embedder = engine.embedder
    return other
