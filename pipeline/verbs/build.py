"""``coreinfer build-clusters``: check cheaply, build, say what was built and what comes next."""

import json
from collections.abc import Callable
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

if TYPE_CHECKING:
    from coreinfer.progress import Stage
    from pipeline.build import Report
    from pipeline.settings import BuildSettings
    from pipeline.shards.ways import Ways
    from pipeline.sources import Counts

MaxBadOption = Annotated[
    int, typer.Option(help="Shards, and files of the dataset, that may be unusable; they are left out, and named.")
]
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
        typer.Option(help="Processes, each with models of its own. [default: 1; ray: one a GPU, or a machine]"),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep nothing to go on from.")] = False,
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
        bool, typer.Option("--dry-run", help="Say what it would need in time, memory and disk; write nothing.")
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
    from coreinfer.places import absolute, check_file
    from pipeline.folder import check_output
    from pipeline.joblog import Log
    from pipeline.readers import check_dataset
    from pipeline.shards.plan import Part
    from pipeline.shards.ways import Ways
    from pipeline.sources import SourceSettings

    place, number = output or named_after(dataset), parse_clusters(clusters)
    check_build(statistic, mode, token_fraction, keep, examples, seed, dtype)
    part = Part.parse(shard) if shard else Part()
    ways = Ways(
        engine, address, workers, shard_passages, not no_cache, work, only, part,  # type: ignore[arg-type]
        bad_shards=max_bad_shards, log=Log(log),
    )  # fmt: skip
    source = SourceSettings(dataset, split, config, text_column, limit, passage_tokens, min_chars)
    if only is None and not dry_run:
        check_output(place, overwrite)
    if not dry_run:
        ways.check()
    if stats is not None:
        check_file(stats, "choose another --stats")
    check_dataset(dataset)
    from coreinfer.libraries import load_libraries

    load_libraries(quiet, model, embedder)
    from coreinfer.hub import DEFAULT
    from coreinfer.progress import stages
    from coreinfer.settings import StatisticSettings
    from pipeline.build import build_clusters as build
    from pipeline.settings import BuildSettings

    settings = BuildSettings(
        source, absolute(model, "demo"), absolute(embedder, DEFAULT), number,
        None if statistic == "auto" else StatisticSettings(statistic, token_fraction, mode),  # type: ignore[arg-type]
        keep, examples, seed, device, dtype,
    )  # fmt: skip
    with stages(quiet) as shown, ways.log as kept:
        stage = kept.shown(shown)
        if dry_run:
            row = _foretold(settings, ways, stage, quiet)
        elif only is not None:
            row = _passed(settings, ways, stage, quiet)
        else:
            row = _built(partial(build, settings), ways, place, overwrite, stage, quiet)
    _tell(row, None if dry_run or only else place, stats, as_json, quiet)


def merge(
    folder: Annotated[Path, typer.Argument(help="The --work of passes that were run on all machines.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the artifact goes.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing artifact.")] = False,
    max_bad_shards: MaxBadOption = 0,
    log: LogOption = None,
    stats: StatsOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Make the artifact of what several machines embedded and recorded in a folder, with the settings they were given.

    Parts that are missing, or were made with other settings, models, versions or processors, are named.
    """
    from coreinfer.places import check_file
    from pipeline.folder import check_output
    from pipeline.joblog import Log
    from pipeline.shards.ways import Ways

    ways = Ways(bad_shards=max_bad_shards, log=Log(log))
    check_output(output, overwrite)
    if stats is not None:
        check_file(stats, "choose another --stats")
    from coreinfer.libraries import load_libraries

    load_libraries(quiet)
    from coreinfer.progress import stages
    from pipeline.merge import merge as merged

    with stages(quiet) as shown, ways.log as kept:
        row = _built(partial(merged, folder), ways, output, overwrite, kept.shown(shown), quiet)
    _tell(row, output, stats, as_json, quiet)


def _tell(row: dict[str, Any], place: Path | None, stats: Path | None, as_json: bool, quiet: bool) -> None:
    """What was done, for programs; what comes next, for people, where an artifact is in its ``place``."""
    if stats is not None:
        _write(stats, row)
    if as_json:
        print(json.dumps(row))
    elif place is not None:
        say(f"next: coreinfer predict --artifact {place} 'your prompt'", quiet)


def _built(
    build: Callable[..., "Report"], ways: "Ways", place: Path, overwrite: bool, stage: "Stage", quiet: bool
) -> dict[str, Any]:
    from coreinfer.output import built_in_lines

    report = build(place, overwrite, stage, _say(ways, quiet), ways)
    made = report.manifest
    _say_counts(report.counts, report.seconds, quiet)
    say(built_in_lines(made, place), quiet)
    facts = {"clusters": made.clusters, "passages": made.passages, "tokens": made.tokens}
    done = {"threshold": report.threshold, "shards": report.shards, "reused": report.reused}
    stages = _timed(report.stages, report.seconds)
    stages["record"] |= {"tokens": made.tokens}
    took = {"seconds": report.seconds, "usage": report.usage}
    done |= {"stages": stages, "source": _counted(report.counts)}
    return {"output": str(place), **facts, **took, **done}


def _passed(settings: "BuildSettings", ways: "Ways", stage: "Stage", quiet: bool) -> dict[str, Any]:
    from pipeline.passes import run_pass

    report = run_pass(settings, ways, stage, _say(ways, quiet))
    _say_counts(report.counts, report.seconds, quiet)
    say(f"pass {ways.only}: {report.done} of {report.shards} shards are in {ways.work}", quiet)
    row: dict[str, Any]
    row = {"work": str(ways.work), "pass": ways.only, "shards": report.shards, "done": report.done}
    row |= {"stages": _timed(report.stages, report.seconds)}
    return row | {"seconds": report.seconds, "reused": report.reused, "source": _counted(report.counts)}


def _foretold(settings: "BuildSettings", ways: "Ways", stage: "Stage", quiet: bool) -> dict[str, Any]:
    from pipeline.forecast import forecast

    made = forecast(settings, ways, stage)
    for line in made.lines():
        say(line, quiet)
    return made.row() | {"source": _counted(made.counts)}


def _say(ways: "Ways", quiet: bool) -> Callable[[str], Any]:
    """Talk that is logged too."""

    def both(text: str) -> None:
        ways.log.put("said", text=text)
        say(text, quiet)

    return both


def _timed(stages: dict[str, dict[str, Any]], seconds: dict[str, float]) -> dict[str, dict[str, Any]]:
    """Counters and seconds of each stage, in the order in which they ran."""
    return {name: {"seconds": taken, **stages.get(name, {})} for name, taken in seconds.items()}


def _say_counts(counts: "Counts", seconds: dict[str, float], quiet: bool) -> None:
    say(counts.sentence(), quiet)
    say("  ".join(f"{name} {taken:.1f} s" for name, taken in seconds.items()), quiet)


def _counted(counts: "Counts") -> dict[str, Any]:
    """What the source held, as JSON."""
    return {"records": counts.records, "passages": counts.passages, "split": counts.split, "dropped": counts.dropped}


def _write(path: Path, row: dict[str, Any]) -> None:
    from coreinfer.places import moved_in, writing

    with writing(path, "choose another --stats"), moved_in(path) as part:
        part.write_text(json.dumps(row, indent=1) + "\n", "utf-8")
