"""The online verbs of the command line: parse, call, print. Heavy packages load inside the functions."""

import json
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreinfer.cli_options import (
    ArtifactOption,
    BundlesOption,
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    FileOption,
    JsonOption,
    KeepOption,
    MaxLossOption,
    MemoryOption,
    ModelOption,
    PolicyOption,
    PromptsArgument,
    QuietOption,
    RefreshOption,
    line_ended,
    make_engine,
    open_with_keep,
    say,
    say_if_files,
)
from coreinfer.errors import CoreInferError
from coreinfer.settings import at_least
from coreinfer.wording import counted

if TYPE_CHECKING:
    from coreinfer.engine import Engine
    from coreinfer.generation import Generation
    from coreinfer.prompts import Prompt


def predict(
    prompts: PromptsArgument = None,
    file: FileOption = None,
    artifact: ArtifactOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    policy: PolicyOption = "auto",
    keep: KeepOption = None,
    max_loss: MaxLossOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write .jsonl or .parquet (turns as JSON text) instead.")
    ] = None,
    with_neurons: Annotated[bool, typer.Option("--with-neurons", help="Include the neuron ids per layer.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    memory: MemoryOption = None,
    bundles: BundlesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Say which neurons each prompt needs, and why."""
    from coreinfer.output import in_lines, prediction_row
    from coreinfer.prompts import read_prompts
    from coreinfer.row_files import check_rows, write_rows

    if with_neurons and not (as_json or output):
        raise CoreInferError("--with-neurons has no place in lines for people: add --json, or --output FILE")
    if output is not None:
        check_rows(output)
    wanted = list(read_prompts(prompts, file))
    opened, keep = open_with_keep(artifact, dtype, policy, keep, max_loss, quiet)
    say_if_files(prompts, quiet)
    engine = make_engine(opened, model, embedder, device, dtype, memory, bundles, quiet)
    matches = engine.match(wanted)
    rows = []
    for prompt, match in zip(wanted, matches, strict=True):
        prediction = engine.predict(prompt, policy, keep, match)  # type: ignore[arg-type]
        row = prediction_row(prompt, prediction, with_neurons)
        rows.append(row)
        if output is None:
            text = json.dumps(row, ensure_ascii=False) if as_json else in_lines(engine.artifact, prompt, prediction)
            print(text, flush=True)
    if output is not None:
        write_rows(rows, output)
        say(f"{counted(len(rows), 'prediction')} in {output}", quiet)


def generate(
    prompts: PromptsArgument = None,
    file: FileOption = None,
    artifact: ArtifactOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    policy: PolicyOption = "auto",
    keep: KeepOption = None,
    max_loss: MaxLossOption = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", "-n")] = 64,
    refresh: RefreshOption = None,
    runtime: Annotated[
        str, typer.Option(help="coreinfer's own steps, transformers, llama.cpp; auto: own where they can.")
    ] = "auto",
    lossless: Annotated[
        bool, typer.Option("--lossless", help="The neurons only draft: the text is the dense model's.")
    ] = False,
    batch: Annotated[
        int, typer.Option(help="Prompts decoded at a time; from 2 on by the neurons of all in a group, and whole.")
    ] = 1,
    temperature: Annotated[float, typer.Option(help="0 is greedy, else 0.01 to 100.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For sampling.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    memory: MemoryOption = None,
    bundles: BundlesOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Continue each prompt on the neurons that it needs; the text streams to stdout."""
    from coreinfer.llamacpp import check_installed
    from coreinfer.output import beginning, drafted, full_context, generation_row, hear, in_lines, together_in_words
    from coreinfer.prompts import read_prompts
    from coreinfer.refresh import parse_refresh
    from coreinfer.settings import QUANTISED, RUNTIMES, check_seed, check_temperature, one_of

    at_least("--max-new-tokens", max_new_tokens, 1)
    at_least("--batch", batch, 1)
    check_temperature(temperature)
    check_seed(seed, "--seed")
    again = parse_refresh(refresh)
    one_of("--runtime", runtime, RUNTIMES)
    alone = {"--refresh": again is not None, "--lossless": lossless, "--runtime": runtime not in ("auto", "coreinfer"),
             "--memory": memory is not None}  # fmt: skip
    if batch > 1 and (named := [name for name, given in alone.items() if given]):
        raise CoreInferError(f"{named[0]} is for one prompt at a time, --batch is {batch}: leave out one of them")
    narrow = {"--memory": memory is not None, f"--dtype {dtype}": dtype in QUANTISED}
    if runtime == "llama.cpp" and (named := [name for name, given in narrow.items() if given]):
        raise CoreInferError(f"llama.cpp runs plain weights that are all in memory: leave out {named[0]}")
    if runtime == "llama.cpp":
        check_installed()
    wanted = list(read_prompts(prompts, file))
    opened, keep = open_with_keep(artifact, dtype, policy, keep, max_loss, quiet)
    say_if_files(prompts, quiet)
    engine = make_engine(opened, model, embedder, device, dtype, memory, bundles, quiet)
    hear(quiet)
    options: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {}
    options |= {"policy": policy, "keep": keep, "max_new_tokens": max_new_tokens}
    import torch

    from coreinfer.batches import encoded

    if len(wanted) > 1:
        encoded(engine, wanted)  # a fault shows before the first is answered
    begun, tokens = time.perf_counter(), 0
    torch.manual_seed(seed)
    together = engine.generate_many(wanted, batch, **options) if batch > 1 else None
    for prompt in wanted:
        if together is None:
            torch.manual_seed(seed)
        if len(wanted) > 1 and not as_json:
            say(beginning(prompt), quiet)
        if together is None:
            made = streamed(engine, prompt, not as_json, refresh=again, runtime=runtime, lossless=lossless, **options)
        else:
            made = next(together)
            print("" if as_json else made.text, end="")
        print(json.dumps(generation_row(prompt, made), ensure_ascii=False) if as_json else "", flush=True)
        say(in_lines(engine.artifact, prompt, made.prediction, speed=made.tokens_per_second), quiet)
        if made.drafts is not None:
            say(drafted(made.drafts), quiet)
        if made.stopped == "context":
            say(full_context(made, max_new_tokens), quiet)
        tokens += made.new_tokens
    if together is not None:
        say(together_in_words(len(wanted), tokens, time.perf_counter() - begun), quiet)


def streamed(engine: "Engine", prompt: "Prompt", shown: bool, **how: Any) -> "Generation":
    """A continuation, printed as it is made where it is to be ``shown``."""
    pieces = engine.stream(prompt, **how)
    with closing(pieces), line_ended(shown):  # a closed pipe or Ctrl-C ends the generation too
        for piece in pieces:
            if not isinstance(piece, str):
                made = piece
            elif shown:
                print(piece, end="", flush=True)
    return made


def inspect(
    artifact: Annotated[Path | None, typer.Argument(help="Artifact folder. [default: the demo]")] = None,
    top: Annotated[int, typer.Option(help="Clusters shown, largest first; 0 shows all.")] = 20,
    picture: Annotated[Path | None, typer.Option("--map", help="Draw the clusters into a .png or .svg.")] = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Show an artifact: its clusters, their terms and sizes, and how much their core sets overlap."""
    from coreinfer.artifact import Artifact
    from coreinfer.output import artifact_facts, print_artifact
    from coreinfer.paths import DEMO_CLUSTERS

    at_least("--top", top, 0)
    if picture is not None:
        from coreinfer.picture import check_map, draw_map

        check_map(picture)
    opened = Artifact.load(artifact or DEMO_CLUSTERS)
    if picture is not None:
        say(f"drawing {picture}", quiet)
        title = f"{counted(opened.manifest.clusters, 'cluster')} of {counted(opened.manifest.passages, 'passage')}"
        draw_map(opened.centroids, opened.sizes, opened.terms, picture, title)
        say(f"map in {picture}", quiet)
    facts = artifact_facts(opened)
    print(json.dumps(facts, ensure_ascii=False)) if as_json else print_artifact(facts, top)
