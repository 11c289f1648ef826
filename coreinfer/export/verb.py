"""``coreinfer export`` and ``coreinfer import``: parse, call, print. Heavy packages load inside the functions."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreinfer.cli_options import (
    ArtifactOption,
    EmbedderOption,
    JsonOption,
    KeepOption,
    ModelOption,
    QuietOption,
    make_engine,
    open_artifact,
    say,
)
from coreinfer.errors import CoreInferError
from coreinfer.export.names import SETS, kind_of
from coreinfer.wording import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coreinfer.artifact import Artifact
    from coreinfer.export.card import About
    from coreinfer.export.choosing import Chosen

SetsOption = Annotated[Path | None, typer.Option("--neurons", help="Sets of a .bits file instead of an artifact's.")]


def export(
    to: Annotated[str, typer.Option("--to", help="transformers, gguf, onnx, safetensors; numpy, arrow, json: sets.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder.")],
    cluster: Annotated[
        list[int] | None, typer.Option("--cluster", "-c", help="Its number; -1: global. Repeat.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="Keep what this prompt needs.")] = None,
    every: Annotated[bool, typer.Option("--all", help="A model for each cluster.")] = False,
    keep: KeepOption = None,
    policy: Annotated[str, typer.Option("--policy", "-p", help="For --prompt: as predict has it.")] = "auto",
    uniform: Annotated[
        bool, typer.Option("--uniform", help="Layers keep equal numbers: smaller where a runtime knows one width.")
    ] = False,
    weights: Annotated[
        str | None, typer.Option(help="bf16, f32; gguf: q8_0, q4_0 too. [default: bf16; onnx: f32]")
    ] = None,
    artifact: ArtifactOption = None,
    neurons: SetsOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Write a model with a cluster's or a prompt's neurons alone, or the sets themselves, for another runtime."""
    from coreinfer.export.card import About
    from coreinfer.export.choosing import check_choice, of_clusters, of_prompt
    from coreinfer.export.choosing import uniform as made_uniform
    from coreinfer.export.run import write_neuron_sets

    wish, clusters = Wish(to, kind_of(to, weights), output, uniform, as_json, quiet), list(cluster or ())
    check_choice(clusters, prompt, every, policy, to not in SETS)
    if neurons is not None:
        _check_file(wish, {"--prompt": prompt, "--all": every or None, "--keep": keep, "--artifact": artifact})
        _from_file(neurons, clusters, model, wish)
        return
    if to in SETS and prompt is not None:
        raise CoreInferError(f"--to {to} holds clusters' sets: leave out --prompt, or `coreinfer predict --json` it")
    opened = open_artifact(artifact, "auto", policy, [] if keep is None else [keep])
    _check(wish, opened, clusters, model, None if prompt is None else embedder)
    keep = opened.manifest.default_keep if keep is None else keep
    opened = made_uniform(opened) if uniform else opened
    if to in SETS:
        place = write_neuron_sets(opened, clusters, keep, to, output)
        print(json.dumps({"place": str(place), "keep": keep})) if as_json else say(f"neuron sets in {place}", quiet)
        return
    numbers = range(opened.manifest.clusters) if every else clusters
    chosen = list(of_clusters(opened, numbers, keep))
    engine = make_engine(opened, model, embedder, "cpu", wish.dtype, quiet=quiet, embeds=prompt is not None)
    if prompt is not None:
        chosen = [of_prompt(engine, prompt, policy, keep)]  # type: ignore[arg-type]
    _write(engine.model, engine.tokenizer, chosen, About.of(opened, opened.manifest.model.id), wish)


@dataclass(frozen=True)
class Wish:
    """What an export is to become, and who hears of it."""

    to: str
    kind: str
    output: Path
    uniform: bool
    as_json: bool
    quiet: bool

    @property
    def dtype(self) -> str:
        """That the model is loaded in: what is quantised here is rounded once."""
        return "bfloat16" if self.kind == "bf16" else "float32"


def _check(wish: Wish, opened: "Artifact", clusters: list[int], model: str | None, embedder: str | None) -> None:
    """Refuse what can be refused before anything heavy is imported; the output last, so that whoever names another one
    hears of no more mistakes.
    """
    from coreinfer.export.choosing import check_clusters
    from coreinfer.export.names import check_package
    from coreinfer.export.run import check_output
    from coreinfer.libraries import check_models

    check_clusters(opened, clusters)
    if wish.to not in SETS:
        check_package(wish.to)
        check_models(model, embedder)
    check_output(wish.output)


def _check_file(wish: Wish, given: dict[str, object]) -> None:
    """Refuse what a file of sets leaves no room for."""
    named = [name for name, value in given.items() if value is not None] + ["--uniform"] * wish.uniform
    if named:
        raise CoreInferError(f"a file of sets has its own neurons: leave out {named[0]}, and give --cluster C")
    if wish.to in SETS:
        raise CoreInferError(f"--neurons is for models, and --to {wish.to} makes sets: leave out one of them")


def _from_file(path: Path, clusters: list[int], model: str | None, wish: Wish) -> None:
    from coreinfer.export.bits import SetFile
    from coreinfer.export.card import About
    from coreinfer.export.choosing import of_file
    from coreinfer.export.names import check_package
    from coreinfer.export.run import check_output
    from coreinfer.libraries import check_models, load_libraries

    opened, name = SetFile.load(path), model or "demo"
    chosen = list(of_file(opened, clusters))
    check_package(wish.to)
    check_models(model)
    check_output(wish.output)
    load_libraries(wish.quiet, model, None, embeds=False)
    from coreinfer.export.origin import check_origin
    from coreinfer.models import load_model

    lm, tokenizer = load_model(name, wish.dtype)
    check_origin(opened, name, lm, tokenizer)
    made = opened.origin.manifest
    _write(lm, tokenizer, chosen, About(name, opened.origin.weights, made if int(made, 16) else None), wish)


def _write(lm: Any, tokenizer: Any, chosen: "Sequence[Chosen]", about: "About", wish: Wish) -> None:
    from coreinfer.export.run import write_models

    rows = write_models(lm, tokenizer, chosen, about, wish.to, wish.kind, wish.output, wish.uniform)
    for row in rows if wish.as_json else ():
        print(json.dumps(row, ensure_ascii=False), flush=True)
    written, dense, ideal = (sum(row[name] for row in rows) for name in ("bytes", "dense_bytes", "ideal_bytes"))
    share = f"{written / dense:.1%} of the dense bytes (ideal {ideal / dense:.1%})"
    what = f"{counted(len(rows), 'model')} for {wish.to} ({wish.kind})"
    say(f"{what} in {wish.output}: {written:,} bytes, {share}", wish.quiet)


def import_sets(
    file: Annotated[Path, typer.Argument(help="Neuron sets as .json, .parquet or .arrow, from any hand or tool.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new .bits file.")],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Check that the sets are of this LM, or say so where they do not."),
    ] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Check a list of neurons as an artifact is checked, and make it a file of sets that `export --neurons` takes."""
    from coreinfer.export.bits import write_sets
    from coreinfer.export.run import REMEDY, check_output
    from coreinfer.export.views import read_view
    from coreinfer.libraries import check_models, load_libraries
    from coreinfer.places import check_file

    if output.suffix != ".bits":
        raise CoreInferError(f"--output {output} has the suffix {output.suffix!r}: give a .bits file")
    listed = read_view(file)
    if listed.origin is None and model is None:
        raise CoreInferError(f"{file} does not say whose neurons these are: give --model NAME")
    check_models(model)
    check_output(output)
    check_file(output, REMEDY)
    if model is not None:
        load_libraries(quiet, model, None, embeds=False)
        from coreinfer.export.origin import with_origin

        listed = with_origin(listed, file, model)
    assert listed.origin is not None
    write_sets(output, listed.origin, listed.keep, listed.sets, REMEDY)
    keeps = {cluster: round(neurons.keep, 6) for cluster, neurons in listed.sets}
    if as_json:
        print(json.dumps({"place": str(output), "model": listed.model, "sets": keeps}, ensure_ascii=False))
    said = f"{counted(len(keeps), 'set')} of {listed.layers} layers of {listed.width:,} neurons"
    say(f"{said}, keep {min(keeps.values()):g} to {max(keeps.values()):g}, in {output}", quiet)
