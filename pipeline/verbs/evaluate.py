"""``coreinfer evaluate``: read held-out texts, measure every policy on them, print the ladder."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coreinfer.cli_options import (
    ArtifactOption,
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
from coreinfer.settings import at_least


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
    refresh: Annotated[
        str | None,
        typer.Option(help="Also policies that choose again after so many tokens, or auto: when it has doubled."),
    ] = None,
    text_column: TextColumnOption = None,
    domain_column: Annotated[
        str | None, typer.Option(help="Rows by domain. [default: domain, topic, category or subset]")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use this many texts, evenly over all, not the first.")] = None,
    seed: Annotated[int, typer.Option(help="Of random neurons, wrong clusters and intervals.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for rows, ladder.md, report.html and resuming.")
    ] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Print what each policy costs on held-out texts: the NLL rise over dense, nats per token."""
    from coreinfer.refresh import parse_refresh
    from pipeline.readers import check_dataset
    from pipeline.sources import SourceSettings

    if limit is not None:
        at_least("--limit", limit, 1)
    source, again = SourceSettings(texts, split, config, text_column), parse_refresh(refresh)
    check_dataset(texts)
    engine = make_engine(open_artifact(artifact, dtype, keeps=keep or []), model, embedder, device, dtype, quiet=quiet)
    from coreinfer.evaluate.compare import open_compared
    from coreinfer.evaluate.plan import LADDER, Plan
    from coreinfer.evaluate.rows import as_rows
    from coreinfer.evaluate.run import run as measure
    from coreinfer.evaluate.run import ticks
    from coreinfer.evaluate.saving import folder_for
    from coreinfer.evaluate.table import print_ladder
    from coreinfer.generation import check_room
    from coreinfer.progress import stages
    from pipeline.texts import read_texts

    keeps, lengths = keep or [engine.artifact.manifest.default_keep], prompt_tokens or [64]
    plan = Plan(tuple(keeps), tuple(lengths), continuation_tokens, tuple(policy or LADDER), seed, again)
    others = open_compared(compare or [], engine, device)
    with folder_for(output):
        check_room(engine.model, plan.length)
        with stages(quiet) as stage:
            found = read_texts(source, plan, engine.tokenizer, limit, domain_column, stage("read texts", None))
        if found.short:
            say(f"{found.short} of {found.seen} texts are shorter than {plan.length} tokens: left out", quiet)
        with stages(quiet) as stage:
            tick = stage("evaluate", ticks(plan, len(found.texts), len(others)))
            rows = measure(engine, found.texts, plan, texts, others, output, tick, lambda text: say(text, quiet))
    print(json.dumps(as_rows(rows), ensure_ascii=False)) if as_json else print_ladder(rows)
