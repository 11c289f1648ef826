"""``coreinfer report``: parse, call, print."""

from pathlib import Path
from typing import Annotated

import typer

from coreinfer.cli_options import (
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    KeepOption,
    ModelOption,
    QuietOption,
    make_engine,
    open_artifact,
    say,
)
from coreinfer.errors import CoreInferError

REMEDY = "name another place that you may write"


def report(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder. [default: the demo]")] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="The .html file.")] = Path("report.html"),
    figures: Annotated[Path | None, typer.Option(help="Also PNG and SVG figures for papers, into this folder.")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", help="Show where a prompt lands, and its neurons; may be repeated.")
    ] = None,
    keep: KeepOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    quiet: QuietOption = False,
) -> None:
    """Write an artifact's map, curves and facts as one HTML file that needs no network."""
    from coreinfer.places import check_file, check_place

    if output.suffix.lower() not in (".html", ".htm"):
        raise CoreInferError(f"cannot write a report as {output.name!r}: end the name in .html")
    check_file(output, REMEDY)
    if figures is not None:
        check_place(figures / "map.png", REMEDY)
    texts = _texts(prompt, keep)
    opened = open_artifact(artifact, dtype, keeps=[keep] if keep is not None else [])
    prompts = []
    if texts:
        from coreinfer.report.seen import landed

        prompts = landed(make_engine(opened, model, embedder, device, dtype, quiet=quiet), texts, keep)
    say(f"drawing {output}", quiet)
    from coreinfer.report.saving import save
    from coreinfer.report.seen import look_at

    for line in save(opened, look_at(opened, prompts), output, figures):
        say(line, quiet)


def _texts(prompts: list[str] | None, keep: float | None) -> list[str]:
    """The prompts, each with a word in it."""
    from coreinfer.prompts import words_of

    if keep is not None and not prompts:
        raise CoreInferError(f"--keep {keep:g} is of a prompt's neurons: give --prompt too, or leave it out")
    return [words_of(text) for text in prompts or ()]
