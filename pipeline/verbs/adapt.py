"""``coreinfer adapt``: the options of core-mask-aware training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from coreinfer.cli_options import (
    DeviceOption,
    EmbedderOption,
    JsonOption,
    ModelOption,
    QuietOption,
    TextColumnOption,
    TrainDtypeOption,
    say,
)


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
    statistic: Annotated[str, typer.Option(help="That ranks neurons: energy or griffin.")] = "energy",
    report_every: Annotated[int, typer.Option(help="Steps between held-out losses.")] = 100,
    checkpoint_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    split: Annotated[str | None, typer.Option(help="Split of a Hub dataset.")] = None,
    config: Annotated[str | None, typer.Option(help="Configuration of a Hub dataset.")] = None,
    text_column: TextColumnOption = None,
    limit: Annotated[int | None, typer.Option(help="Read at most this many texts.")] = None,
    seed: int = 0,
    device: DeviceOption = "cpu",
    dtype: TrainDtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train a model to lose less on core neurons; the same command goes on where it stopped."""
    from coreinfer.libraries import load_libraries
    from pipeline.adapt.settings import AdaptSettings, MaskSettings, PriorSettings, TrainSettings, check_new
    from pipeline.readers import check_dataset
    from pipeline.sources import SourceSettings

    check_new(output)
    check_dataset(dataset)
    parts = (
        SourceSettings(dataset, split, config, text_column, limit), model or "demo", held_out, artifact, embedder,
        MaskSettings(share=mask_share, least=keep_least, most=keep_most, statistic=statistic), PriorSettings(clusters),
        TrainSettings(
            steps, batch, micro, context, rate=rate, weight_decay=weight_decay, lora=lora, distill=distill, seed=seed
        ),
    )  # fmt: skip
    load_libraries(quiet, model, embedder)
    settings = AdaptSettings(*parts, report_every, checkpoint_every, device, dtype)
    from pipeline.adapt.run import adapt as train

    report = train(settings, output, lambda text: say(text, quiet))
    say(f"{output} in {report.seconds:,.0f} s; next: coreinfer build-clusters {dataset} --model {output}", quiet)
    if as_json:
        facts = {"output": str(output), "seconds": report.seconds, "parameters": report.parameters}
        print(json.dumps({**facts, "reports": report.reports}))
