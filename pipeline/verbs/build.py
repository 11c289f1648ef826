"""``coreinfer build-clusters``: check cheaply, build, say what was built and what comes next."""

import json
from pathlib import Path
from typing import Annotated

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
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Build semantic clusters and their core neurons from a dataset."""
    from coreinfer.places import absolute
    from pipeline.folder import check_output
    from pipeline.readers import check_dataset
    from pipeline.sources import SourceSettings

    place, number = output or named_after(dataset), parse_clusters(clusters)
    check_build(statistic, mode, token_fraction, keep, examples, seed, dtype)
    source = SourceSettings(dataset, split, config, text_column, limit, passage_tokens, min_chars)
    check_output(place, overwrite)
    check_dataset(dataset)
    from coreinfer.libraries import load_libraries

    load_libraries(quiet, model, embedder)
    from coreinfer.hub import DEFAULT
    from coreinfer.output import built_in_lines
    from coreinfer.progress import stages
    from coreinfer.settings import StatisticSettings
    from pipeline.build import build_clusters as build
    from pipeline.settings import BuildSettings

    settings = BuildSettings(
        source, absolute(model, "demo"), absolute(embedder, DEFAULT), number,
        None if statistic == "auto" else StatisticSettings(statistic, token_fraction, mode),  # type: ignore[arg-type]
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
