"""``diff``: equal artifacts have nothing to say; what differs is said, and only what compares is compared."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import fine
from conftest import run_cli
from small_artifacts import POLICY, D, F, K, L, rewrite_manifest
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer.artifact import Artifact
from coreinfer.layout import Layout
from coreinfer.manifest import describe
from coreinfer.neurons import top
from coreinfer.upkeep.comparing import differences, matched
from coreinfer.upkeep.telling import in_words
from pipeline import index

Change = Callable[[dict[str, Any]], object]


def fitted(root: Path, change: Change = lambda m: None) -> Artifact:
    """The artifact, its manifest changed and its hashes those of the files."""
    layout = Layout(root)
    rewrite_manifest(root, lambda m: (change(m), m.update(files=describe((*layout.required, layout.index)))))
    return Artifact.load(root)


def test_nothing_differs(whole: Path, copy: Path) -> None:
    found = differences(Artifact.load(whole), Artifact.load(copy))
    assert in_words(found) == ["nothing differs"]
    assert found["manifest"] == found["left_out"] == found["calibration"]["policy"] == []
    assert found["neurons"]["core_overlap"]["least"] == 1
    assert (found["budgets"]["most"], found["clusters"]["mutual"]) == (0, K)


def test_fields_and_numbers(whole: Path, copy: Path) -> None:
    rows = [{"keep": 0.4, "rise": 0.1, "rise_high": 0.2}]
    index.write_calibration(Layout(copy), replace(POLICY, n0=99.0), {"curve": rows})
    other = fitted(copy, lambda m: m.update(seed=3, config={"device": "cuda", "new": {"deep": 1}}))
    found = differences(Artifact.load(whole), other)
    assert {row["field"]: (row["a"], row["b"]) for row in found["manifest"]} == {
        "seed": (0, 3), "config.device": (None, "cuda"), "config.new.deep": (None, 1),
    }  # fmt: skip
    assert found["calibration"]["policy"] == [{"number": "n0", "a": POLICY.n0, "b": 99.0}]
    lines = in_words(found)
    assert "seed: 0 -> 3" in lines
    assert "policy: n0 256.0 -> 99.0" in lines
    assert "only the second holds a curve of what a keep costs" in lines


def test_curves_are_held_side_by_side(whole: Path, copy: Path, tmp_path: Path) -> None:
    again = Path(shutil.copytree(whole, tmp_path / "again"))
    for root, rise in ((copy, 0.1), (again, 0.3)):
        rows = [{"keep": keep, "rise": rise, "rise_high": 0.5} for keep in (0.2, 0.2 + rise)]
        index.write_calibration(Layout(root), POLICY, {"curve": rows})
    found = differences(fitted(copy), fitted(again))
    assert found["calibration"]["curve"] == [{"keep": 0.2, "a": 0.1, "b": 0.3}]
    assert "expected rise at keep 0.2: 0.1000 -> 0.3000" in in_words(found)


def test_budgets(whole: Path, copy: Path) -> None:
    table = index.uniform_table(L, F)
    table[7] += np.array([2, -2, 0])  # at keep 0.4
    index.write_layers(Layout(copy), table)
    found = differences(Artifact.load(whole), fitted(copy))
    assert (found["budgets"]["most"], found["budgets"]["most_at_keep"]) == (2, 0.4)
    assert any(line.startswith("layer budgets: up to 2 neurons of a layer, at keep 0.4") for line in in_words(found))


def test_clusters_in_another_order(whole: Path, copy: Path) -> None:
    """Ids mean nothing: each finds itself, with its core set."""
    old, layout, order = Artifact.load(whole), Layout(copy), [3, 1, 4, 0, 2]
    rows = [old.prior(-1), *(old.prior(c) for c in order)]
    index.write_neurons(layout.neurons, iter(rows), lambda p: top(p, old.budgets(0.3)), F)
    index.write_cluster_rows(
        layout, old.centroids[order], old.sizes[order], old.tokens[order], old.quantiles[order],
        [old.terms[c] for c in order], old.examples,
    )  # fmt: skip
    index.write_index(layout, old.centroids[order])
    new = fitted(copy)
    partner, similarity, mutual = matched(old, new)
    assert [order[c] for c in partner] == list(range(K))
    assert mutual.all()
    assert similarity.min() > 0.9999
    found = differences(old, new)
    assert found["neurons"]["core_overlap"]["least"] == 1
    assert found["clusters"]["sizes"] == []


def test_pairs_are_counted_in_words(whole: Path) -> None:
    found = differences(Artifact.load(whole), Artifact.load(whole))
    for mutual, words in ((1, "; 1 pair mutually nearest"), (K - 1, f"; {K - 1} pairs mutually nearest")):
        found["clusters"]["mutual"] = mutual
        assert in_words(found)[0].endswith(words)


def test_other_statistics_are_measured(whole: Path, copy: Path) -> None:
    old, layout = Artifact.load(whole), Layout(copy)
    rows = [np.roll(old.prior(c), 1, axis=1) for c in range(-1, K)]
    index.write_neurons(layout.neurons, iter(rows), lambda p: top(p, old.budgets(0.3)), F)
    found = differences(old, fitted(copy))
    wanted = np.abs(rows[0] - old.prior(-1)).sum(1) / 2
    assert found["neurons"]["global_distance"] == pytest.approx(wanted.tolist(), abs=1e-3)
    kept = [(old.core_set(0).mask(), top(rows[1], old.budgets(0.3)).mask())]
    lap = [(a & b).sum(1) / (a | b).sum(1) for a, b in kept]
    assert found["neurons"]["core_overlap"]["least"] <= float(np.mean(lap))
    assert any(line.startswith("core sets of matched clusters") for line in in_words(found))


@pytest.mark.parametrize("part", ["model", "embedder"])
def test_what_cannot_be_compared_is_left_out(copy: Path, whole: Path, part: str) -> None:
    other = fitted(copy, lambda m: m[part].update(id="other", weights="f" * 64))
    found = differences(Artifact.load(whole), other)
    first, second, *_ = in_words(found)
    assert first.startswith(f"another {part}: ")
    assert second.startswith("not compared: ")
    gone = ["neurons", "budgets", "calibration"] if part == "model" else ["clusters"]
    assert [name for name in ("clusters", "neurons", "budgets", "calibration") if found[name] is None] == [
        name for name in ("clusters", "neurons", "budgets", "calibration") if name in gone
    ]
    if part == "embedder":
        assert "core_overlap" not in found["neurons"]


def test_another_statistic_is_no_distance(copy: Path, whole: Path) -> None:
    found = differences(Artifact.load(whole), fitted(copy, lambda m: m["statistic"].update(kind="griffin")))
    assert found["neurons"]["global_distance"] is None
    assert any("griffin" in why for why in found["left_out"])


def test_the_command(whole: Path, copy: Path) -> None:
    fitted(copy, lambda m: m.update(seed=9))
    assert "seed: 0 -> 9" in fine(run_cli("diff", whole, copy)).out
    (found,) = fine(run_cli("diff", whole, copy, "--json")).rows
    assert found == json.loads(json.dumps(differences(Artifact.load(whole), Artifact.load(copy))))
    ended = run_cli("diff", whole, copy / "nowhere")
    assert (ended.code, ended.err.count("\n")) == (2, 1)


def test_dimensions_may_differ(whole: Path, tmp_path: Path) -> None:
    """Another embedder has other dimensions: nothing of it is looked at."""
    other = replace(Artifact.load(whole), centroids=np.eye(K, D + 1, dtype=np.float32))
    made = replace(other.manifest, embedder=replace(other.manifest.embedder, weights="e" * 64), dimension=D + 1)
    found = differences(Artifact.load(whole), replace(other, manifest=made))
    assert found["clusters"] is None
