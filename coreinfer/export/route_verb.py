"""``coreinfer route``: parse, call, print. Heavy packages load inside the function."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreinfer.cli_options import (
    ArtifactOption,
    EmbedderOption,
    FileOption,
    PromptsArgument,
    QuietOption,
    open_artifact,
    say_if_files,
)
from coreinfer.errors import CoreInferError, in_words
from coreinfer.export.names import INDEX
from coreinfer.json_fields import record, text, whole

if TYPE_CHECKING:
    from coreinfer.artifact import Artifact

ModelsOption = Annotated[
    Path | None, typer.Option("--models", help="Folder of an export of several clusters: choose among those.")
]


def route(
    prompts: PromptsArgument = None,
    file: FileOption = None,
    artifact: ArtifactOption = None,
    models: ModelsOption = None,
    embedder: EmbedderOption = None,
    quiet: QuietOption = False,
) -> None:
    """Say only which cluster each prompt belongs to, a JSON object a line; no language model is loaded."""
    from coreinfer.prompts import read_prompts

    wanted = list(read_prompts(prompts, file))
    folders = None if models is None else read_models(models)
    opened = open_artifact(artifact, "auto")
    say_if_files(prompts, quiet)
    if folders is not None:
        _check_made_from(models / INDEX if models else Path(INDEX), folders[0], opened)
    from coreinfer.libraries import load_libraries

    load_libraries(quiet, None, embedder)
    from coreinfer.artifact import GLOBAL
    from coreinfer.routing import Router, row_of

    places = None if folders is None else folders[1]
    router = Router(opened, embedder, None if places is None else [c for c in places if c != GLOBAL])
    for found in router.route(wanted):
        print(json.dumps(row_of(found, places), ensure_ascii=False), flush=True)


def read_models(folder: Path) -> tuple[str, dict[int, str]]:
    """Of an export of several clusters: the sha256 of the manifest that it was made from, and each cluster's folder.

    Raises:
        CoreInferError: there is no such export, or it was made from sets that name no artifact.
    """
    from coreinfer import strict_json

    path = folder / INDEX
    try:
        raw = record(INDEX, strict_json.read(path), None)
        rows = [record("a model", one, None) for one in raw["models"]]
        places = {whole("cluster", one["cluster"], least=-1): text("folder", one["folder"]) for one in rows}
        digest = None if raw["artifact"] is None else text("artifact", raw["artifact"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise CoreInferError(
            f"cannot read {path} ({in_words(error)}): give the folder of an export of several clusters"
        ) from error
    if digest is None:
        raise CoreInferError(
            f"{path} was made from sets of a file that names no artifact, so no prompt belongs to one of them: export "
            "clusters of an artifact"
        )
    return digest, places


def _check_made_from(path: Path, digest: str, opened: "Artifact") -> None:
    if opened.digest != digest:
        raise CoreInferError(f"{path} was made from another artifact than {opened.root}: give that one by --artifact")
