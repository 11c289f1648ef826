"""Calibration end to end on the demo LM: it plans as the engine predicts, and what it finds is in the folder."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import tree

from coreinfer import Engine
from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.manifest import Manifest
from coreinfer.neurons import top
from coreinfer.paths import DEMO_CLUSTERS, DEMO_PASSAGES
from coreinfer.progress import Gauge
from coreinfer.settings import PolicySettings
from pipeline.calibration import budgets, layers, numbers, run
from pipeline.calibration.budgets import kept
from pipeline.calibration.run import LEAST, usable
from pipeline.calibration.sample import Lab, cases, rises
from pipeline.data import Arrays
from pipeline.recalibrate import recalibrate, replace_calibration


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.load(dtype="float32")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = DEMO_PASSAGES.read_text("utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[::12]][:26]


@pytest.fixture(scope="module")
def lab(engine: Engine) -> Lab:
    return Lab(engine.model, engine.tokenizer, engine.embedder, engine.artifact)


class Watched:
    """How far each stage was to go, and how far it went; what was measured, by its step and what decides it."""

    def __init__(self) -> None:
        self.totals, self.done = dict[str, int | None](), dict[str, int]()
        self.kept, self.measured, self.foretold = dict[str, Arrays](), list[str](), 0

    def remember(self, step: str, facts: dict[str, Any], make: Callable[[], Arrays]) -> Arrays:
        if (key := f"{step} {facts}") not in self.kept:
            self.measured.append(step)
            self.kept[key] = make()
        return self.kept[key]

    def stage(self, name: str, total: int | None) -> Gauge:
        self.totals[name], self.done[name] = total, 0
        return lambda n, note="": self.done.update({name: self.done[name] + n})


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched()


@pytest.fixture(scope="module")
def calibrated(lab: Lab, texts: list[str], tmp_path_factory: pytest.TempPathFactory, watched: Watched) -> Artifact:
    folder = tmp_path_factory.mktemp("calibrated") / "clusters"
    manifest, policy = quickly_calibrated(folder, lab, texts, watched)
    opened = Artifact.load(folder)
    assert (opened.manifest, opened.policy) == (manifest, policy)
    return opened


def quickly_calibrated(folder: Path, lab: Lab, texts: list[str], watched: Watched) -> tuple[Manifest, PolicySettings]:
    fast = Engine.load().model
    shutil.copytree(DEMO_CLUSTERS, folder)
    with pytest.MonkeyPatch.context() as patch:  # fewer numbers to try, fewer texts and tokens: seconds
        patch.setattr(run, "CONTINUATION", 16)
        patch.setattr(budgets, "KEEPS", (0.05, 0.2, 0.6))
        patch.setattr(numbers, "MIXTURES", numbers.MIXTURES[:3])
        patch.setattr(numbers, "N0", (256.0,))
        patch.setattr(run, "CURVE", (0.1, 0.4, 0.8))
        patch.setattr(numbers, "WORTH", (0.0, 1.0))
        ids = usable(lab.tokenizer, texts)[:6]
        watched.foretold = len(ids) * run.plans(lab.artifact.manifest.layers, lab.artifact.manifest.clusters)
        return recalibrate(folder, fast, lab.tokenizer, lab.embedder, ids, watched.stage, watched.remember)


def test_a_forecast_knows_how_many_plans_there_are(calibrated: Artifact, watched: Watched) -> None:
    ran = sum(total or 0 for name, total in watched.totals.items() if name not in ("gradients", "doubt"))
    assert ran <= watched.foretold <= 1.1 * ran


def test_what_was_measured_is_not_measured_again(
    calibrated: Artifact, lab: Lab, texts: list[str], watched: Watched, tmp_path: Path
) -> None:
    """As after a kill in its tenth step: the same bytes, and no step twice."""
    steps = list(watched.measured)
    assert (len(steps), len(set(steps)), steps[0]) == (11, 11, "layer budgets")
    again = Watched()
    again.kept = dict(list(watched.kept.items())[:9])
    quickly_calibrated(tmp_path / "clusters", lab, texts, again)
    assert again.measured == steps[9:]
    assert tree(tmp_path / "clusters") == tree(calibrated.root)


@pytest.mark.parametrize("source", ["similarity", "stability", "hybrid"])
def test_a_plan_keeps_what_the_engine_predicts(engine: Engine, lab: Lab, texts: list[str], source: str) -> None:
    ids = usable(lab.tokenizer, texts)
    case = next(cases(lab, ids[:2], 64))
    masks = kept(lab.artifact.budgets(0.3), lab.artifact, source)(case)  # type: ignore[arg-type]
    for row, mask in zip(ids[:2], masks, strict=True):
        prompt = engine.tokenizer.decode(row[:64], skip_special_tokens=True)
        assert engine.encode(prompt)[0].tolist() == row[:64].tolist()
        predicted = engine.predict(prompt, source, 0.3).neurons
        assert predicted is not None
        assert (predicted.mask() & mask).sum() / mask.sum() > 0.999  # scores that tie within rounding may swap


def test_all_neurons_cost_nothing_and_few_cost_more(lab: Lab, texts: list[str]) -> None:
    ids = usable(lab.tokenizer, texts)
    full, few = (kept(lab.artifact.budgets(keep), lab.artifact, "similarity") for keep in (1.0, 0.05))
    costs, near = rises(cases(lab, ids[:8], 64), [full, few])
    assert np.abs(costs[:, 0]).max() < 1e-4
    assert costs[:, 1].mean() > 0.2
    assert near.shape == (8, len(lab.artifact.centroids))


def test_what_was_found_is_in_the_folder(calibrated: Artifact, engine: Engine) -> None:
    found = calibrated.calibration
    assert found["measured"]["layers"]["chosen"] in ("uniform", "measured", "weighted")
    assert [row["keep"] for row in found["curve"]] == sorted(row["keep"] for row in found["curve"])
    assert found["clusters_tried"] == engine.artifact.calibration["clusters_tried"]
    assert calibrated.budgets(1.0).tolist() == [calibrated.manifest.width] * calibrated.manifest.layers
    assert [row["power"] for row in found["measured"]["sensitivity"]] == [0, 0.25, 0.5, 1]


def test_every_stage_is_shown_and_ends(calibrated: Artifact, watched: Watched) -> None:
    assert list(watched.totals) == [
        "layer budgets", *(f"weigh layers {number}" for number in range(1, layers.ROUNDS + 1)), "compare budgets",
        "gradients", "sensitivity", "mixture", "source and n0", "doubt", "threshold", "curve",
    ]  # fmt: skip
    assert all(total in (None, watched.done[name]) for name, total in watched.totals.items())


def test_statistics_stay_and_core_sets_follow(calibrated: Artifact, engine: Engine) -> None:
    for cluster in (GLOBAL, 0, 17, calibrated.manifest.clusters - 1):
        prior = calibrated.prior(cluster)
        assert np.array_equal(prior, engine.artifact.prior(cluster))
        keep = calibrated.manifest.default_keep
        assert calibrated.core_set(cluster) == top(prior * calibrated.sensitivity, calibrated.budgets(keep))


def test_the_curve_finds_the_keep(calibrated: Artifact) -> None:
    keeps = [calibrated.keep_for(loss) for loss in (0.0, 0.01, 0.1, 1.0, 100.0)]
    assert keeps == sorted(keeps, reverse=True)
    assert keeps[-1] == calibrated.calibration["curve"][0]["keep"]
    with pytest.raises(CoreInferError, match="0, at keep 1"):
        calibrated.keep_for(-0.1)
    bare = replace(calibrated, calibration={})
    with pytest.raises(CoreInferError, match="coreinfer calibrate"):
        bare.keep_for(0.1)


def test_interpolation_of_a_known_curve(calibrated: Artifact) -> None:
    rows = [{"keep": 0.2, "rise": 0.4}, {"keep": 0.6, "rise": 0.1}, {"keep": 0.8, "rise": -0.01}]
    known = replace(calibrated, calibration={"curve": rows})
    assert known.keep_for(0.25) == pytest.approx(0.4)
    assert known.keep_for(0.1) == pytest.approx(0.6)
    assert known.keep_for(0.0) == pytest.approx(0.8)


def test_too_few_texts_change_nothing(lab: Lab, texts: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "clusters"
    shutil.copytree(DEMO_CLUSTERS, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(CoreInferError, match=rf"^2 of 2 texts have the 128 tokens .* at least {LEAST} must: give more"):
        replace_calibration(Engine.load(folder), texts[:2])
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_fault_on_the_way_leaves_the_old_artifact(
    texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "clusters"
    shutil.copytree(DEMO_CLUSTERS, folder)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.recalibrate.calibrate", full)
    with pytest.raises(CoreInferError, match="No space left"):
        replace_calibration(Engine.load(folder), texts)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_ids_are_cut_at_prompt_and_continuation(lab: Lab, texts: list[str]) -> None:
    ids = usable(lab.tokenizer, texts)
    assert ids.shape[1] == 128
    assert LEAST <= len(ids) <= len(texts)
    assert usable(lab.tokenizer, [*["short"] * 100, texts[0]]).tolist() == ids[:1].tolist()
    assert usable(lab.tokenizer, []).shape == (0, 128)
