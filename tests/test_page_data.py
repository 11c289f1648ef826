"""What pictures are drawn from: places, overlaps, a prompt's neurons beside its cluster's; against slow truths."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_artifacts import F, K, L
from small_artifacts import whole as whole

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.map_layout import SHEET, lay_out
from coreinfer.neurons import NeuronSet, every, order_of, overlap, top
from coreinfer.page import CSP, compare, files, overview
from coreinfer.page.compare import binned
from coreinfer.page.files import STATIC
from coreinfer.page.overlaps import MOST, overlaps
from coreinfer.policy import Prediction


@pytest.fixture(scope="module")
def small(whole: Path) -> Artifact:
    return Artifact.load(whole)


def random_set(seed: int, layers: int, width: int) -> NeuronSet:
    rng = np.random.default_rng(seed)
    return top(rng.random((layers, width)), rng.integers(1, width + 1, layers))


def test_the_overview_is_the_artifact_in_json(small: Artifact) -> None:
    shown = overview(small)
    assert json.loads(json.dumps(shown, allow_nan=False)) == shown
    assert [row["cluster"] for row in shown["clusters"]] == list(range(K))
    assert [row["size"] for row in shown["clusters"]] == small.sizes.tolist()
    assert [row["terms"] for row in shown["clusters"]] == small.terms
    assert shown["policy"]["threshold"] == small.policy.threshold
    assert (shown["keep"], shown["curve"]) == (0.3, []), "no curve was measured"
    for row in shown["budgets"]:
        assert row["neurons"] == small.budgets(row["keep"]).tolist()


def test_the_overview_lies_where_the_picture_does(small: Artifact) -> None:
    layout, shown = lay_out(small.centroids, small.sizes), overview(small)["clusters"]
    for row, (x, y), r in zip(shown, layout.spots, layout.radii, strict=True):
        assert (row["x"], SHEET[1] - row["y"], row["r"]) == pytest.approx((x, y, r), abs=0.06)
        assert 0 <= row["x"] - row["r"] <= row["x"] + row["r"] <= SHEET[0]
        assert 0 <= row["y"] - row["r"] <= row["y"] + row["r"] <= SHEET[1]
        assert 0 <= row["group"] <= 9


def slowly(
    prompt: NeuronSet, core: NeuronSet, order: NDArray[np.int64], sizes: list[int]
) -> list[dict[str, list[int]]]:
    """Counts by sets and loops."""
    made = []
    for mine, theirs, row in zip(prompt.layers, core.layers, order.tolist(), strict=True):
        a, b, at = set(mine.tolist()), set(theirs.tolist()), 0
        layer: dict[str, list[int]] = {"prompt": [], "cluster": [], "both": []}
        for size in sizes:
            here = set(row[at : at + size])
            at += size
            for name, wanted in (("prompt", a), ("cluster", b), ("both", a & b)):
                layer[name].append(len(here & wanted))
        made.append(layer)
    return made


@given(st.integers(1, 4), st.integers(1, 80), st.integers(0, 2**31), st.data())
@settings(deadline=None, max_examples=60)
def test_bins_hold_what_sets_and_loops_count(layers: int, width: int, seed: int, data: st.DataObject) -> None:
    prompt, core = random_set(seed, layers, width), random_set(seed + 1, layers, width)
    order = order_of(np.random.default_rng(seed).random((layers, width)))
    bins = data.draw(st.integers(1, width))
    made = binned(prompt, core, order, bins)
    assert len(made["sizes"]) == bins
    assert sum(made["sizes"]) == width
    assert max(made["sizes"]) - min(made["sizes"]) <= 1
    counts = [{name: layer[name] for name in ("prompt", "cluster", "both")} for layer in made["layers"]]
    assert counts == slowly(prompt, core, order, made["sizes"])
    assert made["overlap"] == pytest.approx(overlap(prompt, core), abs=1e-4)


def test_a_prediction_beside_its_cluster(small: Artifact) -> None:
    core = small.core(small.prior(2), 0.4)
    found = Prediction("auto", "similarity", 2, 0.5, 0.25, "because", 0.4, core, None)
    made = compare(small, found)
    assert made["overlap"] == 1
    assert all(layer["prompt"] == layer["cluster"] == layer["both"] for layer in made["layers"])
    ranked = order_of(small.prior(GLOBAL) * small.sensitivity)
    assert [sum(layer["prompt"][:1]) for layer in made["layers"]] == [
        int(np.isin(row[: made["sizes"][0]], ids).sum()) for row, ids in zip(ranked, core.layers, strict=True)
    ]
    dense = compare(small, replace(found, source="dense", keep=1.0, neurons=every(L, F)))
    assert dense["overlap"] == 1
    assert all(layer["prompt"] == dense["sizes"] for layer in dense["layers"])


def test_overlaps_are_those_of_every_pair(small: Artifact) -> None:
    made = overlaps(small)
    assert sorted(made["clusters"]) == list(range(K))
    sets = {c: small.core_set(c) for c in range(K)}
    for a, row in zip(made["clusters"], made["matrix"], strict=True):
        for b, shared in zip(made["clusters"], row, strict=True):
            assert shared == pytest.approx(overlap(sets[a], sets[b]), abs=6e-4)
    for layer, row in enumerate(made["layers"]):
        each = [np.isin(sets[a].layers[layer], sets[b].layers[layer]).mean() for a in range(K) for b in range(a)]
        assert (row["mean"], row["least"], row["most"]) == pytest.approx(
            (np.mean(each), min(each), max(each)), abs=1e-4
        )
    assert made["chance"] == pytest.approx([0.3] * L, abs=0.01)


def test_overlaps_stand_by_neighbourhood(small: Artifact) -> None:
    groups = np.array([1, 0, 1, 0, 2])
    assert overlaps(small, groups)["clusters"] == [3, 1, 2, 0, 4], "by group, then by size"
    assert MOST >= K


def test_the_page_asks_no_other_machine() -> None:
    """Neither a link, nor a font, nor a script from elsewhere; and nothing inline, which the policy would stop."""
    for name, (content, kind) in files().items():
        text = content.decode()
        found = set(
            re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))
        )
        assert found <= {"http://www.w3.org/2000/svg"}, name
        assert not re.search(
            r"\.innerHTML|\.outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        ), name
        if kind.startswith("text/html"):
            assert not re.search(r"<[^>]+\son\w+=|<[^>]+\sstyle=|<style", text), name
            assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", text)), name
    assert "'unsafe" not in CSP


def test_every_file_that_the_page_names_is_there() -> None:
    page = files()["index.html"][0].decode()
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', page)
    assert len(named) == len(set(named)) >= 8
    assert set(named) <= files().keys()
    assert {path.name for path in STATIC.iterdir()} == {Path(name).name for name in files()}


def test_every_part_that_the_scripts_look_for_is_there() -> None:
    page = files()["index.html"][0].decode()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "an id stands once"
    for name in ("live.js", "landing.js", "generate.js"):
        wanted = set(re.findall(r'\bat\("([\w-]+)"\)', files()[f"page/{name}"][0].decode()))
        assert wanted
        assert wanted <= set(ids), name
    for wanted in re.findall(r'(?:for|aria-labelledby|aria-describedby)="([^"]+)"', page):
        assert wanted in ids
