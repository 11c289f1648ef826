"""An artifact as it is served: opened, with what its statistic needs, and named by its digest."""

import os
from dataclasses import dataclass
from pathlib import Path

from coreinfer.artifact import Artifact
from coreinfer.belonging import check_identity
from coreinfer.decode.continuing import Continuing, continuing
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import digest_of
from coreinfer.serve.faults import Refused


@dataclass(frozen=True)
class Version:
    """``digest``: sha256 of the manifest, which has those of all other files. A text is of one version, to its end."""

    engine: Engine
    own: Continuing
    digest: str

    @property
    def artifact(self) -> Artifact:
        return self.engine.artifact

    def keep(self, asked: float | None) -> float:
        """The share to keep, the artifact's own where none is asked for.

        Raises:
            Refused: less than the least that was measured, or for want of a curve, that layer budgets are stored for.
        """
        made = self.artifact
        if asked is None:
            return made.manifest.default_keep
        curve = made.calibration.get("curve") or []
        least = float(min((row["keep"] for row in curve), default=made.budget_grid[0]))
        if asked < least:
            said = f"keep is {asked:g}, the least that was calibrated is {least:g}: give that or more"
            raise Refused(400, said, "keep", "keep_not_calibrated")
        return asked


def opened(engine: Engine, decoder: object) -> Version:
    """Of an engine whose model ``decoder`` runs."""
    made = engine.artifact
    return Version(engine, continuing(decoder, made.manifest.statistic), digest_of(made.root))  # type: ignore[arg-type]


def successor(now: Version, root: str | Path) -> Version:
    """Another artifact for the models that are loaded; verified before anything of it is used.

    Raises:
        CoreInferError: it does not verify, or other models made it.
    """
    there = os.path.isfile(Layout(Path(root)).manifest)  # where a path asks this, a name that is too long is a fault
    before = digest_of(Path(root)) if there else None
    artifact, old = Artifact.load(root), now.artifact.manifest
    made = artifact.manifest
    if (made.layers, made.width, made.dimension) != (old.layers, old.width, old.dimension):
        raise CoreInferError(
            f"{root} is for {made.layers} layers of {made.width} neurons and {made.dimension} dimensions, what is "
            f"served has {old.layers}, {old.width} and {old.dimension}: start another server for it"
        )
    check_identity("model", old.model, made.model)
    check_identity("embedder", old.embedder, made.embedder)
    engine = Engine.around(artifact, now.engine.model, now.engine.tokenizer, now.engine.embedder)
    version = opened(engine, now.own.decoder)
    if version.digest != before:
        raise CoreInferError(f"{root} changed while it was read: let it be whole, and come again")
    return version
