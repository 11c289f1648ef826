"""An artifact as it is served: opened, with what its statistic needs, and named by its digest."""

from dataclasses import dataclass
from pathlib import Path

from coreinfer.artifact import Artifact
from coreinfer.belonging import check_identity
from coreinfer.decode.continuing import Continuing, continuing
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.serve.faults import Refused


@dataclass(frozen=True)
class Version:
    """What a text is made by, from its beginning to its end."""

    engine: Engine
    own: Continuing

    @property
    def artifact(self) -> Artifact:
        return self.engine.artifact

    @property
    def digest(self) -> str:
        """The artifact's, as it was loaded."""
        return self.artifact.digest

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
    return Version(engine, continuing(decoder, engine.artifact.manifest.statistic))  # type: ignore[arg-type]


def successor(now: Version, root: str | Path) -> Version:
    """Another artifact for the models that are loaded; verified before anything of it is used.

    Raises:
        CoreInferError: it does not verify, or other models made it.
    """
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
    return opened(engine, now.own.decoder)
