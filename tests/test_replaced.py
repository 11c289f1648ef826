"""An artifact in whose place another comes while it is read: all of one, or all of the other, or one line."""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from small_artifacts import POLICY, F, L, rewrite_manifest, write
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer import verified
from coreinfer.artifact import Artifact
from coreinfer.errors import CoreInferError
from coreinfer.evaluate.facts import _artifact as evaluated
from coreinfer.export.bits import SetFile
from coreinfer.export.card import About
from coreinfer.export.route_verb import _check_made_from
from coreinfer.export.run import write_neuron_sets
from coreinfer.export.sharing import card
from coreinfer.layout import Layout
from coreinfer.manifest import MANIFEST, describe, sha256_of
from coreinfer.serve.versions import Version
from pipeline import index


def write_other(root: Path) -> None:
    """The artifact of ``write``, calibrated anew."""
    write(root)
    layout = Layout(root)
    index.write_calibration(layout, replace(POLICY, threshold=0.5, strong=0.5), {"held_out_passages": 3})
    index.write_sensitivity(layout, np.full((L, F), 2.0))
    files = describe((*layout.required, layout.index))
    rewrite_manifest(root, lambda made: made.update(seed=1, files=files))


def facts(opened: Artifact) -> tuple[int, float, float]:
    return opened.manifest.seed, opened.policy.threshold, float(opened.sensitivity[0, 0])


def swapping(monkeypatch: pytest.MonkeyPatch, at: int, swap: Callable[[], object]) -> list[int]:
    """Swap just before the file number ``at`` is opened; the list has a number for each that was."""
    opening, calls = Path.open, list[int]()

    def counted(self: Path, *given: Any, **more: Any) -> Any:
        calls.append(len(calls))
        if calls[-1] == at:
            swap()
        return opening(self, *given, **more)

    monkeypatch.setattr(Path, "open", counted)
    return calls


@pytest.mark.parametrize("parts", [("",), ("calibration.json", "sensitivity.parquet", "manifest.json")])
def test_what_is_loaded_is_of_one_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    """The folder at once, as a build and a calibration do, or file by file; before any file that a load opens."""
    seen, calls = list[tuple[int, float, float] | str](), [0]
    for at in count():
        if len(calls) < at:  # the last one ended before it came to this
            break
        root, other = tmp_path / f"{at}" / "mine", tmp_path / f"{at}" / "other"
        root.parent.mkdir()
        write(root)
        write_other(other)

        def swap(root: Path = root, other: Path = other) -> None:
            (root.parent / "old").mkdir()
            for part in parts:
                (root / part).rename(root.parent / "old" / (part or "mine"))
                (other / part).rename(root / part)

        with monkeypatch.context() as patch:
            calls = swapping(patch, at, swap)
            try:
                seen.append(facts(Artifact.load(root)))
            except CoreInferError as error:
                seen.append(str(error).removeprefix(f"{root}/"))
    assert len(seen) > 5
    again = "neurons.parquet was replaced after it was opened: load the artifact again"
    assert {(0, 0.25, 1.0), (1, 0.5, 2.0)} <= set(seen) <= {(0, 0.25, 1.0), (1, 0.5, 2.0), again}
    assert seen.count(again) <= 1


def test_it_is_named_by_what_was_loaded(copy: Path, tmp_path: Path) -> None:
    """In results, cards, exports and by a server, though another manifest has its place by then."""
    opened, before = Artifact.load(copy), sha256_of(copy / MANIFEST)
    rewrite_manifest(copy, lambda made: made.update(seed=1))
    assert Artifact.load(copy).digest == sha256_of(copy / MANIFEST) != before
    engine: Any = SimpleNamespace(artifact=opened)
    assert evaluated(engine)["sha256"] == Version(engine, Mock()).digest == About.of(opened, "demo").digest == before
    assert f"manifest sha256 {before}." in card(opened, "me/mine")
    assert SetFile.load(write_neuron_sets(opened, [0], 0.3, "numpy", tmp_path / "sets")).origin.manifest == before
    _check_made_from(Path("models.json"), before, opened)


def test_what_does_not_come_to_rest_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replaced(*_: Any) -> None:
        rewrite_manifest(copy, lambda made: made.update(seed=made["seed"] + 1))
        raise CoreInferError("its sha256 differs")

    monkeypatch.setattr(verified, "_verified", replaced)
    with pytest.raises(CoreInferError, match=r"copy was replaced 4 times while it was read: load it when that has"):
        Artifact.load(copy)
