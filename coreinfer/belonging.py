"""Whether a model is the one that made an artifact's numbers, and whose word its name is."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coreinfer.errors import CoreInferError
from coreinfer.manifest import ModelIdentity


def check_identity(what: str, found: ModelIdentity, wanted: ModelIdentity) -> None:
    """Refuse another model or embedder than the one that made the artifact's numbers."""
    if (found.weights, found.setup) != (wanted.weights, wanted.setup):
        other = "weights" if found.weights != wanted.weights else "settings or another tokenizer"
        shape = "the same shape but " if what == "model" else ""  # that was compared before
        raise CoreInferError(
            f"the artifact was built with the {what} {wanted.id!r}, {found.id!r} has {shape}other {other}: give that "
            f"{what} or rebuild the artifact"
        )


@contextmanager
def named_by_artifact(root: Path, what: str, given: str | None) -> Iterator[None]:
    """Say of a model that cannot be loaded that its name was the artifact's, unless the caller ``given`` it."""
    try:
        yield
    except CoreInferError as error:
        if given is not None:
            raise
        raise CoreInferError(
            f"{error}; that name comes from the artifact {root}: if the {what} lies elsewhere, give --{what} PATH"
        ) from error
