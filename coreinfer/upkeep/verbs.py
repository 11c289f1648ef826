"""``coreinfer verify`` and ``coreinfer diff``: parse, call, print. Heavy packages load inside the functions."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, get_args

import typer

from coreinfer.cli_options import (
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    JsonOption,
    QuietOption,
    make_engine,
    say,
)
from coreinfer.wording import shortened


def verify(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Check, too, that this LM and the embedder are those it is of.")
    ] = None,
    embedder: EmbedderOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check everything in an artifact: hashes, tables, numbers, index, and what they must have in common."""
    from coreinfer.output import show
    from coreinfer.settings import Dtype, one_of
    from coreinfer.upkeep.verifying import Checked, unlisted, verified

    one_of("--dtype", dtype, get_args(Dtype))
    opened, found = verified(artifact)
    if more := unlisted(opened):
        names = shortened(", ".join(more), 200)
        say(f"{artifact} also holds what is no part of the artifact, and was not looked at: {names}", quiet)
    if model is not None or embedder is not None:
        say("files are right; loading the models", quiet)
        engine = make_engine(opened, model, embedder, device, dtype)
        made = opened.manifest
        found.append(Checked("embedder", engine.embedder.bytes, f"{engine.embedder.name}, as the manifest says"))
        if model is not None:
            size = sum(p.nbytes for p in engine.model.parameters())
            found.append(Checked("model", size, f"{model}, {made.layers} layers of {made.width}, as the manifest says"))
    if as_json:
        print(json.dumps({"artifact": str(artifact), "checked": [asdict(one) for one in found]}, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.table import Table

    table = Table("file", "bytes", "what is right about it", box=None, header_style="dim")
    for one in found:
        table.add_row(escape(one.file), f"{one.bytes:,}" if one.bytes else "", escape(one.found))
    show(table, f"{escape(str(artifact))} is what it says it is")


def diff(
    first: Annotated[Path, typer.Argument(help="Artifact folder.")],
    second: Annotated[Path, typer.Argument(help="Another.")],
    as_json: JsonOption = False,
) -> None:
    """Say what sets two artifacts apart: settings, clusters, neurons, numbers and layer budgets."""
    from coreinfer.artifact import Artifact
    from coreinfer.upkeep.comparing import differences
    from coreinfer.upkeep.telling import in_words

    found = differences(Artifact.load(first), Artifact.load(second))
    print(json.dumps(found, ensure_ascii=False) if as_json else "\n".join(in_words(found)))
