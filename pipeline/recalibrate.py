"""An artifact's numbers measured anew, in its place: layer budgets, policy and curve; clusters and statistics stay."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.embedder import Embedder
from coreinfer.manifest import Layout, Manifest
from coreinfer.settings import PolicySettings
from pipeline import index
from pipeline.calibration.run import Calibrated, calibrate, usable, with_budgets
from pipeline.calibration.sample import Lab


def recalibrate(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    embedder: Embedder,
    texts: Sequence[str],
    tick: Callable[[int], Any] = lambda n: None,
) -> tuple[Manifest, PolicySettings]:
    """Calibrate the artifact in ``folder`` on texts that it was not built from, and write what was found into it.

    It starts from uniform budgets and the numbers that are there. Nothing is written if too few texts are long enough
    for chance not to choose (``calibration.run.LEAST``). Returns what the folder then holds.
    """
    artifact = Artifact.load(folder)
    plain = with_budgets(artifact, index.GRID, index.uniform_table(artifact.manifest.layers, artifact.manifest.width))
    lab = Lab(model, tokenizer, embedder, plain)
    if (ids := usable(lab, texts)) is None:
        return artifact.manifest, artifact.policy
    found = calibrate(lab, ids, index.GRID, tick)
    return _write(Layout(folder), artifact, found), found.policy


def _write(layout: Layout, artifact: Artifact, found: Calibrated) -> Manifest:
    old = {
        key: value for key, value in artifact.calibration.items() if key not in ("policy", "curve", "threshold_rule")
    }
    evidence = dict(found.evidence)
    index.write_layers(layout, found.budgets)
    index.write_calibration(layout, found.policy, {"curve": evidence.pop("curve"), **old, "measured": evidence})
    facts = {f.name: getattr(artifact.manifest, f.name) for f in fields(artifact.manifest) if f.name != "files"}
    return index.write_manifest(layout, **facts)
