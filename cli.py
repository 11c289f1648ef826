"""The command line: parse, call, print. Data goes to stdout, talk to stderr; heavy packages load inside the verbs."""

try:
    import json
    import os
    import signal
    import sys
    from contextlib import closing
    from pathlib import Path
    from typing import Annotated, Any

    import typer
except KeyboardInterrupt:  # the first tenth of a second; ``run`` looks after the rest
    raise SystemExit(130) from None

from coreinfer.cli_options import (
    ArtifactOption,
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    FileOption,
    JsonOption,
    KeepOption,
    MaxLossOption,
    ModelOption,
    PolicyOption,
    PromptsArgument,
    QuietOption,
    VersionOption,
    check_build,
    keep_of,
    line_ended,
    named_after,
    open_engine,
    parse_clusters,
    run,
    say,
)
from coreinfer.errors import CoreInferError
from coreinfer.settings import at_least
from coreinfer.wording import counted

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,  # plain help: a third of a second would go into importing what draws boxes
    pretty_exceptions_enable=False,
)


@app.callback()
def options(version: VersionOption = False) -> None:
    """Run a language model on only the neurons that a prompt needs."""


@app.command("build-clusters")
def build_clusters(
    dataset: Annotated[
        str,
        typer.Argument(help="Hub name, .jsonl, .parquet, .csv, .txt (blank lines part its texts), a folder or a glob."),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="[default: artifacts/ and the name of the file, folder or Hub dataset]"),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Found by itself where it is unambiguous.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many passages.")] = None,
    clusters: Annotated[str, typer.Option("--clusters", "-c", help="A number, or auto.")] = "auto",
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    statistic: Annotated[str, typer.Option(help="energy, count or griffin.")] = "energy",
    token_fraction: Annotated[float, typer.Option(help="Eq. 1's share of a token's neurons, for count.")] = 0.4,
    mode: Annotated[str, typer.Option(help="magnitude or positive, for count.")] = "magnitude",
    keep: Annotated[float, typer.Option("--keep", "-k", help="The default share of neurons kept.")] = 0.4,
    passage_tokens: Annotated[int, typer.Option(help="Longer texts are split into passages of this size.")] = 384,
    min_chars: Annotated[int, typer.Option(help="Shorter texts are left out.")] = 20,
    examples: Annotated[int, typer.Option(help="Passages stored per cluster; a corpus is private, so 0.")] = 0,
    seed: Annotated[int, typer.Option(help="Of k-means and of the held-out sample.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")] = False,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build semantic clusters and their core neurons from a dataset."""
    from coreinfer.places import absolute
    from pipeline.folder import check_output
    from pipeline.readers import local_files
    from pipeline.sources import SourceSettings

    place, number = output or named_after(dataset), parse_clusters(clusters)
    check_build(statistic, mode, token_fraction, keep, examples, seed, dtype)
    source = SourceSettings(dataset, split, config, text_column, limit, passage_tokens, min_chars)
    check_output(place, overwrite)
    local_files(dataset)
    from coreinfer.embedder import DEFAULT
    from coreinfer.output import built_in_lines, quiet_libraries, stages
    from coreinfer.settings import StatisticSettings
    from pipeline.build import BuildSettings
    from pipeline.build import build_clusters as build

    quiet_libraries()
    settings = BuildSettings(
        source, absolute(model, "demo"), absolute(embedder, DEFAULT), number,
        StatisticSettings(statistic, token_fraction, mode),  # type: ignore[arg-type]
        keep, examples, seed, device, dtype,
    )  # fmt: skip
    with stages(quiet) as stage:
        report = build(settings, place, overwrite, stage, lambda text: say(text, quiet))
    made, times = report.manifest, report.seconds
    say(report.counts.sentence(), quiet)
    say("  ".join(f"{name} {seconds:.1f} s" for name, seconds in times.items()), quiet)
    say(built_in_lines(made, place), quiet)
    if as_json:
        facts = {"clusters": made.clusters, "passages": made.passages, "tokens": made.tokens}
        print(json.dumps({"output": str(place), **facts, "seconds": times, "threshold": report.threshold}))
    elif not quiet:
        say(f"next: coreinfer predict --artifact {place} 'your prompt'", quiet)


@app.command()
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
    engine = open_engine(artifact, model, embedder, device, dtype, policy, [keep])
    keep = keep_of(engine.artifact, keep, max_loss)
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


@app.command()
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
    temperature: Annotated[float, typer.Option(help="0 is greedy, else 0.01 to 100.")] = 0.0,
    seed: Annotated[int, typer.Option(help="For sampling.")] = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Continue each prompt on the neurons that it needs; the text streams to stdout."""
    from coreinfer.output import beginning, full_context, generation_row, in_lines
    from coreinfer.prompts import read_prompts
    from coreinfer.settings import check_seed, check_temperature

    at_least("--max-new-tokens", max_new_tokens, 1)
    check_temperature(temperature)
    check_seed(seed, "--seed")
    wanted = list(read_prompts(prompts, file))
    engine = open_engine(artifact, model, embedder, device, dtype, policy, [keep])
    keep = keep_of(engine.artifact, keep, max_loss)
    options: dict[str, Any] = {"do_sample": True, "temperature": temperature} if temperature else {}
    import torch

    for prompt in wanted:
        torch.manual_seed(seed)
        if len(wanted) > 1 and not as_json:
            say(beginning(prompt), quiet)
        pieces = engine.stream(prompt, policy=policy, keep=keep, max_new_tokens=max_new_tokens, **options)
        with closing(pieces), line_ended(not as_json):  # a closed pipe or Ctrl-C ends the generation too
            for piece in pieces:
                if not isinstance(piece, str):
                    made = piece
                elif not as_json:
                    print(piece, end="", flush=True)
        print(json.dumps(generation_row(prompt, made), ensure_ascii=False) if as_json else "", flush=True)
        say(in_lines(engine.artifact, prompt, made.prediction, speed=made.tokens_per_second), quiet)
        if made.stopped == "context":
            say(full_context(made, max_new_tokens), quiet)


@app.command()
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


@app.command()
def evaluate(
    texts: Annotated[str, typer.Argument(help="Texts as for build-clusters; each as long as prompt and continuation.")],
    artifact: ArtifactOption = None,
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    compare: Annotated[
        list[Path] | None,
        typer.Option(help="Another artifact of the same model: its global and similarity too. May be repeated."),
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option("--policy", "-p", help="Only this policy; may be repeated. [default: all]")
    ] = None,
    keep: Annotated[list[float] | None, typer.Option("--keep", "-k", help="May be repeated.")] = None,
    prompt_tokens: Annotated[
        list[int] | None, typer.Option(help="The part that runs dense; may be repeated. [default: 64]")
    ] = None,
    continuation_tokens: Annotated[int, typer.Option(help="The part that runs on the kept neurons.")] = 128,
    text_column: Annotated[str | None, typer.Option(help="Found by itself where it is unambiguous.")] = None,
    domain_column: Annotated[
        str | None, typer.Option(help="Rows by domain. [default: domain, topic, category or subset]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use this many texts, evenly over all, not the first.")] = None,
    seed: Annotated[int, typer.Option(help="Of random neurons, wrong clusters and intervals.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for rows, a report.html and resuming.")
    ] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what each policy costs on held-out texts: the NLL rise over dense, nats per token."""
    from coreinfer.engine import check_room
    from coreinfer.evaluate.compare import open_compared
    from coreinfer.evaluate.plan import LADDER, Plan
    from coreinfer.evaluate.rows import as_rows
    from coreinfer.evaluate.run import run as measure
    from coreinfer.evaluate.run import ticks
    from coreinfer.evaluate.saving import make_folder
    from coreinfer.evaluate.table import print_ladder
    from coreinfer.output import stages
    from pipeline.sources import SourceSettings
    from pipeline.texts import read_texts

    if limit is not None:
        at_least("--limit", limit, 1)
    source = SourceSettings(texts, split, config, text_column)
    engine = open_engine(artifact, model, embedder, device, dtype, keeps=keep or [])
    keeps, lengths = keep or [engine.artifact.manifest.default_keep], prompt_tokens or [64]
    plan = Plan(tuple(keeps), tuple(lengths), continuation_tokens, tuple(policy or LADDER), seed)
    others = open_compared(compare or [], engine, device)
    if output is not None:
        make_folder(output)
    check_room(engine.model, plan.length)
    found = read_texts(source, plan, engine.tokenizer, limit, domain_column)
    if found.short:
        say(f"{found.short} of {found.seen} texts are shorter than {plan.length} tokens: left out", quiet)
    with stages(quiet) as stage:
        tick = stage("evaluate", ticks(plan, len(found.texts), len(others)))
        rows = measure(engine, found.texts, plan, texts, others, output, tick, lambda text: say(text, quiet))
    print(json.dumps(as_rows(rows), ensure_ascii=False)) if as_json else print_ladder(rows)


@app.command()
def calibrate(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder; its numbers are replaced.")],
    texts: Annotated[str, typer.Argument(help="Texts as for build-clusters, which the artifact was not built from.")],
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    text_column: Annotated[str | None, typer.Option(help="Found by itself where it is unambiguous.")] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure an artifact's numbers anew: layer budgets, mixture, n0, threshold, and what each keep costs."""
    engine = open_engine(artifact, model, embedder, device, dtype)
    from dataclasses import asdict

    from coreinfer.artifact import Artifact
    from coreinfer.output import print_calibration, stages
    from pipeline.recalibrate import replace_calibration
    from pipeline.texts import some_texts

    wanted = some_texts(texts, text_column, 512)
    with stages(quiet) as stage:
        _, policy = replace_calibration(engine, wanted, stage("calibrate", None))
    found = Artifact.load(artifact).calibration
    print(json.dumps(found)) if as_json else print_calibration(asdict(policy), found)


@app.command()
def adapt(
    dataset: Annotated[str, typer.Argument(help="Texts as for build-clusters.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the trained model; must not exist.")],
    model: ModelOption = None,
    held_out: Annotated[str | None, typer.Option(help="Texts to report on. [default: 2% of the dataset]")] = None,
    artifact: Annotated[Path | None, typer.Option("--artifact", "-a", help="Take this artifact's clusters.")] = None,
    clusters: Annotated[
        int | None, typer.Option("--clusters", "-c", help="[default: 128, fewer for few texts]")
    ] = None,
    embedder: EmbedderOption = None,
    lora: Annotated[int, typer.Option(help="Rank of adapters; 0 trains all weights.")] = 0,
    distill: Annotated[float, typer.Option(help="Weight of the distance from the dense original, 0 to 1.")] = 0.0,
    steps: int = 1000,
    batch: Annotated[int, typer.Option(help="Sequences of a step.")] = 64,
    micro: Annotated[int, typer.Option(help="Sequences of a forward; fewer need less memory.")] = 8,
    context: Annotated[int | None, typer.Option(help="Tokens of a sequence. [default: 512]")] = None,
    rate: Annotated[float | None, typer.Option(help="[default: 2e-5, with --lora 2e-4]")] = None,
    weight_decay: Annotated[float, typer.Option(help="More where the data is seen often.")] = 0.1,
    mask_share: Annotated[float, typer.Option(help="Share of sequences that run on core neurons.")] = 0.8,
    keep_least: Annotated[float, typer.Option(help="Keep is drawn between this ...")] = 0.08,
    keep_most: Annotated[float, typer.Option(help="... and this.")] = 0.55,
    report_every: Annotated[int, typer.Option(help="Steps between held-out losses.")] = 100,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    text_column: Annotated[str | None, typer.Option(help="Found by itself where it is unambiguous.")] = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many texts.")] = None,
    seed: int = 0,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model to lose less on core neurons; the same command goes on where it stopped."""
    from pipeline.adapt.settings import AdaptSettings, MaskSettings, PriorSettings, TrainSettings, check_new
    from pipeline.readers import local_files
    from pipeline.sources import SourceSettings

    check_new(output)
    local_files(dataset)
    settings = AdaptSettings(
        SourceSettings(dataset, split, config, text_column, limit), model or "demo", held_out, artifact, embedder,
        MaskSettings(share=mask_share, least=keep_least, most=keep_most), PriorSettings(clusters),
        TrainSettings(
            steps, batch, micro, context, rate=rate, weight_decay=weight_decay, lora=lora, distill=distill, seed=seed
        ),
        report_every, checkpoint_every, device, dtype,
    )  # fmt: skip
    from coreinfer.output import quiet_libraries
    from pipeline.adapt.run import adapt as train

    quiet_libraries()
    report = train(settings, output, lambda text: say(text, quiet))
    say(f"{output} in {report.seconds:,.0f} s; next: coreinfer build-clusters {dataset} --model {output}", quiet)
    if as_json:
        facts = {"output": str(output), "seconds": report.seconds, "parameters": report.parameters}
        print(json.dumps({**facts, "reports": report.reports}))


def main() -> None:
    """Run a verb. A polite kill ends it as an error would: with nothing left behind."""
    # torch's threads spin while they wait for each other. Beside another busy process that is a catastrophe: the demo
    # LM, 20M parameters on two cores, falls from 120 tokens a second to 30, beside a second torch to 2. Asleep they
    # make 70 to 90 everywhere; that an idle machine would make 120 is the price, and less in a larger model.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch is imported
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    run(app)


if __name__ == "__main__":
    main()
