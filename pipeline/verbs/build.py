"""``coreinfer build-clusters``: check cheaply, build, say what was built and what comes next."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coreinfer.cli_options import (
    DeviceOption,
    DtypeOption,
    EmbedderOption,
    JsonOption,
    ModelOption,
    QuietOption,
    TextColumnOption,
    check_build,
    named_after,
    parse_clusters,
    say,
)
from pipeline.verbs.telling import built, counted, say_counts, saying, tell, timed

if TYPE_CHECKING:
    from coreinfer.progress import Stage
    from pipeline.settings import BuildSettings
    from pipeline.shards.ways import Ways

MaxBadOption = Annotated[
    int, typer.Option(help="Shards, and files of the dataset, that may be unusable; they are left out, and named.")
]
NoCacheOption = Annotated[bool, typer.Option("--no-cache", help="Keep nothing to go on from.")]
LogOption = Annotated[
    Path | None, typer.Option(help="Append what happens, and when, to this file: JSON lines in .jsonl, else text.")
]
StatsOption = Annotated[
    Path | None, typer.Option(help="Write each stage's counts and seconds into this file, as JSON.")
]


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
    text_column: TextColumnOption = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many passages.")] = None,
    clusters: Annotated[str, typer.Option("--clusters", "-c", help="A number, or auto.")] = "auto",
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    statistic: Annotated[
        str, typer.Option(help="energy, griffin or count; auto: what costs held-out texts least.")
    ] = "auto",
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
    engine: Annotated[str, typer.Option(help="local, or ray (pip install 'coreinfer[ray]').")] = "local",
    address: Annotated[
        str | None,
        typer.Option(help="Ray's head, HOST:PORT, or auto. [default: a Ray on this machine, just for this]"),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes, each with models of its own. [default: one a GPU, else 1; ray: or one a machine]"
        ),
    ] = None,
    no_cache: NoCacheOption = False,
    compiled: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile", help="torch.compile the LM to record. [default: on a GPU, from 50,000 passages]"
        ),
    ] = None,
    shard_passages: Annotated[
        int | None, typer.Option(help="Passages between two savings, a multiple of 512. [default: 512; 4096 on a GPU]")
    ] = None,
    work: Annotated[Path | None, typer.Option(help="A folder that several machines share, as said above.")] = None,
    only: Annotated[str | None, typer.Option("--pass", help="embed or record, into --work, and no more.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: this is machine i of n, from 0, in a --pass; auto: as SLURM or torchrun says."),
    ] = None,
    max_bad_shards: MaxBadOption = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would need in time, memory and disk; build nothing.")
    ] = False,
    log: LogOption = None,
    stats: StatsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build semantic clusters and their core neurons from a dataset.

    A build that was stopped goes on where it was when the same command is given again.

    On several machines: the command with --work FOLDER --pass embed --shard i/n on each, then with --pass record in
    place of --pass embed on each, then `coreinfer merge FOLDER` on one of them. Or once, with --engine ray --address
    HOST:PORT --work FOLDER.
    """
    from coreinfer.libraries import check_models, load_libraries
    from coreinfer.places import absolute, check_file
    from pipeline.folder import check_output
    from pipeline.joblog import Log
    from pipeline.shards.plan import Part
    from pipeline.shards.ways import Ways
    from pipeline.sources import SourceSettings, check_source

    place, number = output or named_after(dataset), parse_clusters(clusters)
    check_build(statistic, mode, token_fraction, keep, examples, seed, dtype)
    part = Part.parse(shard) if shard else Part()
    ways = Ways(
        engine, address, workers, shard_passages, not no_cache, work, only, part,  # type: ignore[arg-type]
        bad_shards=max_bad_shards, log=Log(log), speeds=True if as_json or stats else False if quiet else None,
    )  # fmt: skip
    source = SourceSettings(dataset, split, config, text_column, limit, passage_tokens, min_chars)
    check_source(source, max_bad_shards)
    check_models(model, embedder)
    if not dry_run:
        ways.check()
    if stats is not None:
        check_file(stats, "choose another --stats")
    if only is None and not dry_run:
        check_output(place, overwrite)  # last: whoever names another one hears of no more mistakes
    load_libraries(quiet, model, embedder)
    from coreinfer.hub import DEFAULT
    from coreinfer.progress import stages
    from coreinfer.settings import StatisticSettings
    from pipeline.build import build_clusters as build
    from pipeline.settings import BuildSettings

    settings = BuildSettings(
        source, absolute(model, "demo"), absolute(embedder, DEFAULT), number,
        None if statistic == "auto" else StatisticSettings(statistic, token_fraction, mode),  # type: ignore[arg-type]
        keep, examples, seed, device, dtype, compiled=compiled,
    )  # fmt: skip
    with stages(quiet) as shown, ways.log as kept:
        stage = kept.shown(shown)
        if dry_run:
            row = _foretold(settings, ways, stage, quiet)
        elif only is not None:
            row = _passed(settings, ways, stage, quiet)
        else:
            row = built(partial(build, settings), ways, place, overwrite, stage, quiet)
    tell(row, None if dry_run or only else place, stats, as_json, quiet)


def _passed(settings: "BuildSettings", ways: "Ways", stage: "Stage", quiet: bool) -> dict[str, Any]:
    from pipeline.passes import run_pass

    report = run_pass(settings, ways, stage, saying(ways, quiet))
    say_counts(report.counts, report.seconds, report.stages, quiet)
    rest = "" if report.done == report.shards else ", the rest is for the other machines"
    after = "--pass record on each machine" if ways.only == "embed" else f"coreinfer merge {ways.work} --output …"
    say(f"pass {ways.only}: {report.done} of {report.shards} shards are in {ways.work}{rest}; next: {after}", quiet)
    row: dict[str, Any]
    row = {"work": str(ways.work), "pass": ways.only, "shards": report.shards, "done": report.done}
    row |= {"stages": timed(report.stages, report.seconds)}
    return row | {"seconds": report.seconds, "reused": report.reused, "source": counted(report.counts)}


def _foretold(settings: "BuildSettings", ways: "Ways", stage: "Stage", quiet: bool) -> dict[str, Any]:
    from pipeline.forecast import forecast

    made = forecast(settings, ways, stage)
    for line in made.lines():
        say(line, quiet)
    return made.row() | {"source": counted(made.counts)}
