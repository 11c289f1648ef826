"""``coreinfer analyze``: the paper's observations on any model and any texts."""

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
    say,
)


def analyze(
    texts: Annotated[str, typer.Argument(help="Texts as for build-clusters; each as long as prompt and continuation.")],
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    alpha: Annotated[float, typer.Option(help="Eq. 1's share of a token's neurons, where it does not vary.")] = 0.4,
    keep: Annotated[
        float,
        typer.Option("--keep", "--beta", "-k", help="Eq. 2's share of a layer's neurons, where it does not vary."),
    ] = 0.4,
    prompt_tokens: Annotated[int, typer.Option(help="The part that runs dense and decides on the neurons.")] = 64,
    continuation_tokens: Annotated[int, typer.Option(help="The part that runs on them.")] = 128,
    text_column: TextColumnOption = None,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    limit: Annotated[int, typer.Option(help="Use this many texts, evenly over all, not the first.")] = 256,
    seed: Annotated[int, typer.Option(help="Of pairs of texts and intervals.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for analysis.json, pictures and a report.html.")
    ] = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure what the paper observes: quality, overlaps, stability and similarity of core neurons."""
    from typing import get_args

    from coreinfer.settings import Dtype, at_least, one_of
    from pipeline.analysis.plan import FEWEST, Plan
    from pipeline.readers import check_dataset
    from pipeline.sources import SourceSettings

    plan, source = (
        Plan(alpha, keep, prompt_tokens, continuation_tokens, seed),
        SourceSettings(texts, split, config, text_column),
    )
    at_least("--limit", limit, FEWEST)
    one_of("--dtype", dtype, get_args(Dtype))
    check_dataset(texts)
    from coreinfer.libraries import load_libraries
    from coreinfer.progress import stages
    from coreinfer.settings import check_device

    load_libraries(quiet, model, embedder)
    check_device(device)
    from coreinfer.evaluate.saving import folder_for
    from pipeline.analysis.opening import facts_of, opened
    from pipeline.analysis.run import analyze as measure
    from pipeline.analysis.table import print_findings

    with folder_for(output):
        with stages(quiet) as stage:
            lm, tokenizer, meaning, found = opened(
                source, plan, model or "demo", embedder, limit, device, dtype, stage("read texts", None)
            )
        if found.short:
            say(f"{found.short} of {found.seen} texts are shorter than {plan.length} tokens: left out", quiet)
        with stages(quiet) as stage:
            findings, pairs = measure(lm, tokenizer, meaning, found.texts, plan, stage)
        facts = facts_of(texts, model or "demo", lm, meaning, plan, found)
        if output is not None:
            from pipeline.analysis.saving import save

            save(output, findings, pairs, plan, facts)
            say(f"analysis.json, pictures and report.html in {output}", quiet)
    print(json.dumps({**facts, **findings.as_json()}, ensure_ascii=False)) if as_json else print_findings(
        findings, facts
    )
