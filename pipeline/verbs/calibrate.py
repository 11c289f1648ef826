"""``coreinfer calibrate``: an artifact's numbers, measured anew on other texts."""

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
    make_engine,
    open_artifact,
)


def calibrate(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder; its numbers are replaced.")],
    texts: Annotated[str, typer.Argument(help="Texts as for build-clusters, which the artifact was not built from.")],
    model: ModelOption = None,
    embedder: EmbedderOption = None,
    text_column: TextColumnOption = None,
    device: DeviceOption = "cpu",
    dtype: DtypeOption = "auto",
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure an artifact's numbers anew: layer budgets, mixture, n0, threshold, and what each keep costs."""
    from pipeline.readers import check_dataset

    check_dataset(texts)
    engine = make_engine(open_artifact(artifact, dtype), model, embedder, device, dtype, quiet=quiet)
    from dataclasses import asdict

    from coreinfer.artifact import Artifact
    from coreinfer.output import print_calibration
    from coreinfer.progress import stages
    from pipeline.recalibrate import replace_calibration
    from pipeline.texts import some_texts

    wanted = some_texts(texts, text_column, 512)
    with stages(quiet) as stage:
        _, policy = replace_calibration(engine, wanted, stage)
    found = Artifact.load(artifact).calibration
    print(json.dumps(found)) if as_json else print_calibration(asdict(policy), found)
