"""build-clusters, evaluate and calibrate as a user types them: data on stdout, talk on stderr, and what each says."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from command_line import fine
from conftest import demo_texts, run_cli, tree, write_corpus
from small_models import save_llama

from coreinfer import Artifact
from coreinfer.evaluate import LADDER
from coreinfer.output import built_in_lines


def test_build(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "some.jsonl", demo_texts(20, 120))
    common = ("build-clusters", corpus, "--output", tmp_path / "made", "--clusters", 2)
    told = fine(run_cli(*common, "--json", "--limit", 19, "--keep", 0.3, "--examples", 1))
    (row,) = told.rows
    assert (row["output"], row["clusters"], row["passages"]) == (str(tmp_path / "made"), 2, 19)
    assert row["tokens"] > 100
    assert set(row["seconds"]) >= {"load models", "read passages", "embed", "cluster", "record", "write"}
    assert 0 < row["threshold"] < 1
    stages = [line for line in told.err.splitlines() if line in row["seconds"]]
    assert stages == ["load models", "read passages", "hold out", "embed", "cluster", "record", "write"]
    assert "19 passages" in told.err
    assert "it needs 24 held-out texts of 128 tokens, here are 0 of 0" in told.err
    assert f"build with more or longer texts, or run `coreinfer calibrate {tmp_path / 'made'} TEXTS`" in told.err
    assert "held out" not in told.err
    facts = fine(run_cli("inspect", tmp_path / "made", "--json")).rows[0]
    assert (facts["keep"], len(facts["clusters"][0]["examples"])) == (0.3, 1)
    again = fine(run_cli(*common, "--overwrite"))
    assert again.out == ""  # talk only
    assert f"next: coreinfer predict --artifact {tmp_path / 'made'}" in again.err
    silent = fine(run_cli(*common, "--overwrite", "--quiet"))
    assert (silent.out, silent.err) == ("", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "some.jsonl"]


def test_build_names_its_output_after_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "news.jsonl", demo_texts(6, 100))
    (row,) = fine(run_cli("build-clusters", "news.jsonl", "--clusters", 1, "--json", "-q")).rows
    assert row["output"] == str(Path("artifacts/news"))
    assert (tmp_path / "artifacts" / "news" / "manifest.json").is_file()


def test_a_relative_model_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_llama(tmp_path / "lm", layers=2, width=48, context=64)
    write_corpus(tmp_path / "news.jsonl", demo_texts(6, 100))
    monkeypatch.chdir(tmp_path)
    built = fine(run_cli("build-clusters", "news.jsonl", "-c", 1, "--model", "lm", "--passage-tokens", 32, "-o", "a"))
    assert "1 cluster of " in built.err
    monkeypatch.chdir("/")
    common = ("predict", "some words", "-p", "stability", "--json", "-a", tmp_path / "a")
    assert len(fine(run_cli(*common)).rows[0]["neurons_per_layer"]) == 2
    (tmp_path / "lm").rename(tmp_path / "moved")
    lost = run_cli(*common)
    assert lost.code == 2
    assert f"{str(tmp_path / 'lm')!r}" in lost.err
    assert f"that name comes from the artifact {tmp_path / 'a'}" in lost.err
    assert "give --model PATH" in lost.err
    assert fine(run_cli(*common, "--model", tmp_path / "moved")).rows


@pytest.mark.parametrize("asked", [None, 6])
def test_what_was_held_out_is_said(artifact: Path, asked: int | None) -> None:
    made = Artifact.load(artifact).manifest
    made = replace(made, config=made.config | {"clusters": asked})
    why = "the threshold" if asked else "K and the threshold"
    said = built_in_lines(made, artifact)
    assert said.startswith("6 clusters of 57 passages (")
    assert f" tokens); 3 held out to choose {why}; in {artifact}" in said


def test_evaluate(artifact: Path, tmp_path: Path) -> None:
    texts = write_corpus(tmp_path / "held.jsonl", [*demo_texts(60, 3000)[3::10]])
    common = ("evaluate", texts, "-a", artifact, "--dtype", "float32", "--prompt-tokens=32", "--continuation-tokens=32")
    rows = json.loads(fine(run_cli(*common, "--json", "-k", 0.2)).out)
    kl = {row["policy"]: row["kl"] for row in rows}  # on so few texts the loss tells good policies hardly apart
    assert list(kl) == ["dense", *LADDER]
    assert kl["dense"] == rows[0]["nll_rise"] == 0
    assert kl["random"] > kl["similarity"] > kl["oracle"]
    shown = fine(run_cli(*common, "-k", 0.5, "--limit", 2, "-p", "auto", "-p", "oracle")).out
    assert "2 texts: 32 prompt tokens dense" in shown
    assert "oracle" in shown


def test_calibrate_refuses_too_few_texts(artifact: Path, corpus: Path) -> None:
    before = tree(artifact)
    made = run_cli("calibrate", artifact, corpus)
    assert (made.code, made.err.count("\n")) == (2, 1)
    assert "128 tokens" in made.err
    assert tree(artifact) == before
