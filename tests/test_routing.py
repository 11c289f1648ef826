"""Which cluster, and nothing else: against the engine's own match, over all clusters and among some."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import in_new_process
from conftest import demo_texts, run_cli

from coreinfer import CoreInferError, Engine
from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.layout import Layout
from coreinfer.manifest import sha256_of
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.routing import Router

TEXTS = [text[:120] for text in demo_texts(60, 200)[::10]]


@pytest.fixture(scope="module")
def opened() -> Artifact:
    return Artifact.load(DEMO_CLUSTERS)


def test_routes_are_the_engines_matches(opened: Artifact) -> None:
    matches = Engine(opened).match(TEXTS)
    for route, match in zip(Router(opened).route(TEXTS), matches, strict=True):
        assert (route.cluster, route.strong) == (match.cluster, match.similarity >= opened.policy.threshold)
        assert route.similarity == pytest.approx(match.similarity, abs=1e-6)
        assert route.margin == pytest.approx(match.margin, abs=1e-6)
        assert route.terms == tuple(opened.terms[route.cluster][:8])


def test_among_some(opened: Artifact) -> None:
    router = Router(opened, among=[77, 3, 40, 3])
    vectors = router.embedder.embed_each(TEXTS)
    for route, vector in zip(router.route(TEXTS), vectors, strict=True):
        similarities = {c: float(opened.centroids[c] @ vector) for c in (3, 40, 77)}
        best = max(similarities, key=lambda c: similarities[c])
        assert route.cluster == best
        second = sorted(similarities.values())[-2]
        assert route.margin == pytest.approx(similarities[best] - second, abs=1e-5)
    assert Router(opened, among=[5]).route(TEXTS[:1])[0].margin == 0
    for odd in ([], [128], [-1]):
        with pytest.raises(CoreInferError, match="give some of 0 to 127"):
            Router(opened, among=odd)


def models(place: Path, digest: str | None, clusters: tuple[int, ...] = (3, 77)) -> Path:
    place.mkdir()
    rows = [{"cluster": c, "folder": "global" if c == GLOBAL else f"cluster-{c}", "terms": []} for c in clusters]
    (place / "models.json").write_text(json.dumps({"artifact": digest, "models": rows}), "utf-8")
    return place


def test_from_the_command_line(opened: Artifact, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(TEXTS), "utf-8")
    said = run_cli("route", "--file", tmp_path / "prompts.txt", "-q")
    assert said.code == 0, said.err
    assert [row["cluster"] for row in said.rows] == [one.cluster for one in Router(opened).route(TEXTS)]
    made = models(tmp_path / "models", sha256_of(Layout(DEMO_CLUSTERS).manifest))
    rows = run_cli("route", "--models", made, *TEXTS[:2], "-q").rows
    assert {(row["cluster"], row["model"]) for row in rows} <= {(3, "cluster-3"), (77, "cluster-77")}
    assert np.isfinite([row["similarity"] for row in rows]).all()


def test_weak_prompts_get_the_global_model_where_there_is_one(tmp_path: Path) -> None:
    made = models(tmp_path / "models", sha256_of(Layout(DEMO_CLUSTERS).manifest), (GLOBAL, 3, 77))
    rows = run_cli("route", "--models", made, *TEXTS, "She sang a song about love.", "-q").rows
    assert {row["cluster"] for row in rows} <= {3, 77}
    for row in rows:
        assert row["model"] == (f"cluster-{row['cluster']}" if row["strong"] else "global")
    assert not rows[-1]["strong"]


def test_bad_input(tmp_path: Path) -> None:
    said = run_cli("route", "--models", tmp_path, "Some words", "-q")
    assert (said.code, "give the folder of an export of several clusters" in said.err) == (2, True)
    made = models(tmp_path / "models", "a" * 64)
    said = run_cli("route", "--models", made, "Some words", "-q")
    assert (said.code, "was made from another artifact" in said.err) == (2, True)
    nobodys = models(tmp_path / "sets", None)
    said = run_cli("route", "--models", nobodys, "Some words", "-q")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "was made from sets of a file that names no artifact" in said.err
    assert run_cli("route", " ", "-q").code == 2


def test_no_language_model_is_loaded() -> None:
    code = """
import sys, runpy
import coreinfer.models
def refuse(*_):
    raise AssertionError("a language model")
coreinfer.models.load_model = refuse
sys.argv = ["coreinfer", "route", "Some words", "-q"]
import cli
cli.main()
print("coreinfer.engine" in sys.modules, "coreinfer.decode.families" in sys.modules)
"""
    said = in_new_process(code)
    assert said.out.splitlines()[-1] == "False False", said.err
