"""``coreinfer update``: more passages into an artifact."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coreinfer.cli_options import (
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    JsonOption,
    ModelOption,
    QuietOption,
    TextColumnOption,
    make_engine,
    open_artifact,
    say,
)
from pipeline.verbs.build import LogOption, NoCacheOption
from pipeline.verbs.telling import saying

if TYPE_CHECKING:
    from coreinfer.artifact import Artifact

PASSAGE_TOKENS = 384  # of a build that does not say


def update(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder; it stays as it is.")],
    dataset: Annotated[str, typer.Argument(help="Texts as for build-clusters, which it does not hold yet.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the new artifact.")],
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    text_column: TextColumnOption = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many passages.")] = None,
    passage_tokens: Annotated[
        int | None, typer.Option(help="Longer texts are split into passages of this size. [default: as in the build]")
    ] = None,
    min_chars: Annotated[int, typer.Option(help="Shorter texts are left out.")] = 20,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    workers: Annotated[
        int | None, typer.Option(help="Processes, each with models of its own. [default: one a GPU, else 1]")
    ] = None,
    no_cache: NoCacheOption = False,
    log: LogOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Add passages to an artifact's clusters; say how far they drift, and whether to rebuild.

    An update that was stopped goes on where it was when the same command is given again.
    """
    from coreinfer.libraries import check_models, load_libraries
    from pipeline.folder import check_output
    from pipeline.joblog import Log
    from pipeline.shards.ways import Ways
    from pipeline.sources import SourceSettings, check_source

    ways = Ways(workers=workers, cache=not no_cache, log=Log(log))
    opened = open_artifact(artifact, dtype)
    longest = tokens_of(opened) if passage_tokens is None else passage_tokens
    source = SourceSettings(dataset, split, config, text_column, limit, longest, min_chars)
    check_source(source)
    check_models(model, embedder)
    ways.check()
    check_output(output, overwrite)
    load_libraries(quiet, model, embedder)
    engine = make_engine(opened, model, embedder, device, dtype)
    from coreinfer.progress import stages
    from pipeline.updating.run import update as add

    with stages(quiet) as shown, ways.log as kept:
        made = add(engine, source, output, overwrite, kept.shown(shown), saying(ways, quiet), ways)
    say(made.counts.sentence(), quiet)
    if as_json:
        total = {"passages": made.manifest.passages, "tokens": made.manifest.tokens}
        print(json.dumps({"output": str(output), **total, "drift": made.drift.as_json()}, ensure_ascii=False))
        return
    print("\n".join(made.drift.in_words()))
    say(f"next: coreinfer calibrate {output} TEXTS: its numbers are still those of {artifact}", quiet)


def tokens_of(artifact: "Artifact") -> int:
    """How long the build's passages were, at most."""
    source = artifact.manifest.config.get("source")
    found = source.get("max_tokens") if isinstance(source, dict) else None
    return found if type(found) is int and found > 0 else min(PASSAGE_TOKENS, artifact.manifest.model.max_tokens)
