"""An artifact's numbers measured anew, in its place: layer budgets, policy and curve; clusters and statistics stay."""

import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.embedder import Embedder
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest
from coreinfer.places import moved_in
from coreinfer.progress import Stage, unseen
from coreinfer.settings import PolicySettings
from coreinfer.tables import GLOBAL
from pipeline import index
from pipeline.calibration.doubts import NEEDED, PROMPTS, from_few
from pipeline.calibration.layers import with_budgets
from pipeline.calibration.run import LEAST, TOKENS, Calibrated, calibrate, usable
from pipeline.calibration.sample import Lab
from pipeline.data import Remember, forget
from pipeline.folder import appearing


def recalibrate(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    embedder: Embedder,
    ids: Tensor,
    stage: Stage = unseen,
    remember: Remember = forget,
) -> tuple[Manifest, PolicySettings]:
    """Calibrate the artifact in ``folder`` on texts that it was not built from, and write what was found into it.

    It starts from uniform budgets, even weights and the policy that is there; ``ids`` as ``usable`` cuts them. Returns
    what the folder then holds. ``stage`` shows progress, ``remember`` keeps what each step measures.
    """
    artifact = Artifact.load(folder)
    found = calibrate(_lab(artifact, model, tokenizer, embedder), ids, index.GRID, stage, remember)
    return _write(Layout(folder), artifact, found), found.policy


def calibrate_new(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    embedder: Embedder,
    texts: Sequence[str],
    stage: Stage = unseen,
    remember: Remember = forget,
) -> tuple[Manifest, PolicySettings]:
    """The same on the texts that a build held out; if too few of them are long enough, the usual doubt alone."""
    if len(ids := usable(tokenizer, texts)) >= LEAST:
        return recalibrate(folder, model, tokenizer, embedder, ids, stage, remember)
    artifact, ids = Artifact.load(folder), usable(tokenizer, texts, NEEDED)
    if not len(ids):
        return artifact.manifest, artifact.policy
    lab, tick = _lab(artifact, model, tokenizer, embedder), stage("doubt", len(ids) * len(PROMPTS))
    policy, evidence = from_few(lab, ids, tick)
    index.write_calibration(Layout(folder), policy, _evidence_of(artifact) | evidence)
    return _manifest_again(Layout(folder), artifact), policy


def replace_calibration(engine: Engine, texts: Sequence[str], stage: Stage = unseen) -> tuple[Manifest, PolicySettings]:
    """Calibrate the artifact of ``engine`` on disk; it is replaced whole at the end, or not at all.

    Raises:
        CoreInferError: too few texts are long enough, or the folder cannot be written.
    """
    root, ids = engine.artifact.root, usable(engine.tokenizer, texts)
    if len(ids) < LEAST:
        raise CoreInferError(
            f"{len(ids)} of {len(texts)} texts have the {TOKENS} tokens that calibration needs, at least {LEAST} must: "
            "give more, or longer ones"
        )
    with appearing(root, overwrite=True) as (made, _):
        for file in (Layout(root).manifest, *(root / name for name in engine.artifact.manifest.files)):
            if file.is_file():  # the FAISS index may be missing
                shutil.copyfile(file, made / file.name)
        return recalibrate(made, engine.model, engine.tokenizer, engine.embedder, ids, stage)


def too_few(long: int, held: int, passage_tokens: int, place: Path) -> str:
    """What a build says that cannot calibrate: ``long`` of its ``held`` held-out texts have enough tokens."""
    more = "more or longer texts" if passage_tokens >= TOKENS else f"--passage-tokens {TOKENS} or more"
    return (
        f"calibration is left out: it needs {LEAST} held-out texts of {TOKENS} tokens, here are {long} of {held}: the "
        f"policies' numbers are not measured by loss, --max-loss finds no curve; build with {more}, or run `coreinfer "
        f"calibrate {place} TEXTS` on others"
    )


def _lab(artifact: Artifact, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, embedder: Embedder) -> Lab:
    """With the artifact as it was before any calibration of its budgets and weights."""
    made = artifact.manifest
    plain = with_budgets(artifact, index.GRID, index.uniform_table(made.layers, made.width))
    even = np.ones((made.layers, made.width), np.float32)
    return Lab(model, tokenizer, embedder, replace(plain, sensitivity=even))


def _write(layout: Layout, artifact: Artifact, found: Calibrated) -> Manifest:
    old, evidence = _evidence_of(artifact), dict(found.evidence)
    index.write_layers(layout, found.budgets)
    index.write_sensitivity(layout, found.sensitivity)
    index.write_calibration(layout, found.policy, {"curve": evidence.pop("curve"), **old, "measured": evidence})
    chosen = with_budgets(replace(artifact, sensitivity=found.sensitivity), found.grid, found.budgets)
    _write_cores(layout, chosen)
    return _manifest_again(layout, artifact)


def _evidence_of(artifact: Artifact) -> dict[str, Any]:
    """What ``calibration.json`` says besides the numbers that are measured anew."""
    anew = ("policy", "curve", "threshold_rule", "measured")
    return {key: value for key, value in artifact.calibration.items() if key not in anew}


def _manifest_again(layout: Layout, artifact: Artifact) -> Manifest:
    """The artifact's manifest with the files as they now are."""
    facts = {f.name: getattr(artifact.manifest, f.name) for f in fields(artifact.manifest) if f.name != "files"}
    return index.write_manifest(layout, **facts)


def _write_cores(layout: Layout, artifact: Artifact) -> None:
    """The statistics again, with the core sets that budgets and weights now pick."""
    made = artifact.manifest
    priors = (artifact.prior(cluster) for cluster in range(GLOBAL, made.clusters))
    with moved_in(layout.neurons) as part:
        index.write_neurons(part, priors, lambda prior: artifact.core(prior, made.default_keep), made.width)
