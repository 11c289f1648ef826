"""Whole runs: what lies in the folder, resuming, an artifact beside, what is said; by the command line as typed."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
import small_artifacts
from conftest import Result, demo_texts, run_cli, tree

from coreinfer import Engine
from coreinfer.evaluate import LADDER, Plan, Text, scoring
from coreinfer.evaluate.partial import Partial
from coreinfer.evaluate.plan import name_texts
from coreinfer.evaluate.run import run, ticks
from coreinfer.evaluate.saving import folder_for

FILES = {"rows.json", "rows.parquet", "texts.parquet", "settings.json", "ladder.md", "ladder.svg", "report.html"}
PLAN = Plan((0.4, 0.2), (16, 8), 12, ("random", "global", "hybrid", "auto", "oracle"))


@pytest.fixture(scope="module")
def texts(engine: Engine) -> list[Text]:
    found = name_texts(engine.tokenizer, demo_texts(30, 300)[::3], PLAN)
    return [Text(text.name, text.ids, "ab"[i % 2]) for i, text in enumerate(found)]


@pytest.fixture(scope="module")
def finished(engine: Engine, texts: list[Text], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run in batches of 3."""
    place = tmp_path_factory.mktemp("evaluated")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "LARGEST", 3)
        run(engine, texts, PLAN, "held.jsonl", folder=place)
    return place


def test_the_folder_is_whole(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES
    rows = json.loads((finished / "rows.json").read_text())
    assert rows == pq.read_table(finished / "rows.parquet").to_pylist()
    assert len(rows) == 3 * 2 * (1 + 2 * 5)
    settings = json.loads((finished / "settings.json").read_text())
    assert settings["model"]["id"] == "demo"
    assert settings["keeps"] == [0.4, 0.2]
    assert settings["machine"]["cpu"]


def test_texts_average_to_the_rows(finished: Path) -> None:
    texts = pq.read_table(finished / "texts.parquet").to_pylist()
    assert len(texts) == 10 * 2 * 2 * 5
    for row in json.loads((finished / "rows.json").read_text()):
        mine = [
            text for text in texts
            if all(text[key] == row[key] for key in ("policy", "keep", "prompt_tokens"))
            and row["domain"] in (None, text["domain"])
        ]  # fmt: skip
        assert len(mine) == (0 if row["policy"] == "dense" else row["texts"])
        for name in ("nll_rise", "kl", "agreement", "recall") if mine else ():
            assert row[name] == pytest.approx(np.mean([text[name] for text in mine]), abs=2e-6)
        weights = np.array([8, 4]) / 12
        for text in mine:
            assert np.dot(text["rise_by_position"], weights) == pytest.approx(text["nll_rise"], abs=1e-6)


@pytest.mark.parametrize("batches", [1, 3])
def test_an_interrupted_run_resumes_to_the_same_bytes(
    engine: Engine, texts: list[Text], finished: Path, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "LARGEST", 3)
    real, ran, said = scoring._Work.run, list[int](), list[str]()

    def fail(self: Any, batch: list[Text], prompt_tokens: int, tick: Any) -> Any:
        if len(ran) == 2 * batches:  # two prompt lengths each
            raise KeyboardInterrupt
        ran.append(prompt_tokens)
        return real(self, batch, prompt_tokens, tick)

    monkeypatch.setattr(scoring._Work, "run", fail)
    with pytest.raises(KeyboardInterrupt):
        run(engine, texts, PLAN, "held.jsonl", folder=tmp_path)
    assert not FILES & {path.name for path in tmp_path.iterdir()}

    def count(self: Any, batch: list[Text], prompt_tokens: int, tick: Any) -> Any:
        ran.append(prompt_tokens)
        return real(self, batch, prompt_tokens, tick)

    ran.clear()
    ticked: list[int] = []
    monkeypatch.setattr(scoring._Work, "run", count)
    run(engine, texts, PLAN, "held.jsonl", folder=tmp_path, tick=ticked.append, say=said.append)
    assert len(ran) == 2 * (4 - batches)
    assert said[0].startswith(f"resumed: {batches} of 4 batches were finished before")
    assert sum(ticked) == ticks(PLAN, 10, 0)
    mine, whole = tree(tmp_path), tree(finished)
    for name in ("rows.json", "rows.parquet", "texts.parquet"):
        assert mine[name] == whole[name]
    assert set(mine) == FILES


def test_other_settings_do_not_take_up_a_partial_run(
    engine: Engine, texts: list[Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, real, stopped = Plan((0.4,), (8,), 12, ("global",)), scoring._Work.run, [True]

    def fail_second(self: Any, batch: list[Text], *args: Any) -> Any:
        if stopped[0] and batch[0].name != texts[0].name:
            raise KeyboardInterrupt
        return real(self, batch, *args)

    monkeypatch.setattr(scoring, "LARGEST", 5)
    monkeypatch.setattr(scoring._Work, "run", fail_second)
    with pytest.raises(KeyboardInterrupt):
        run(engine, texts, plan, "held.jsonl", folder=tmp_path)
    stopped[0] = False
    for changed in (Plan((0.3,), (8,), 12, ("global",)), Plan((0.4,), (8,), 12, ("global",), seed=1)):
        said: list[str] = []
        run(engine, texts, changed, "held.jsonl", folder=tmp_path, say=said.append)
        assert not any("resumed" in line for line in said)
    said = []
    run(engine, texts[:9], plan, "held.jsonl", folder=tmp_path, say=said.append)  # other texts
    assert not any("resumed" in line for line in said)


def test_the_report_needs_nothing_else(finished: Path) -> None:
    chart = ElementTree.parse(finished / "ladder.svg").getroot()  # well-formed, and sized by itself
    assert float(chart.attrib["width"]) > 300
    assert "auto" in "".join(chart.itertext())
    page = (finished / "report.html").read_text("utf-8")
    assert not re.findall(r"(?:src|href)\s*=\s*\"(?!#)", page)
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")
    assert page.count("<svg") == page.count("</svg>") == 4  # ladder, keep, prompt, position; too few texts to bin
    assert len(page) < 400_000
    for word in ("What a keep costs", "By domain, keep 0.2", "All numbers, 8 prompt tokens", "held.jsonl", "torch"):
        assert word in page


def test_names_cannot_break_the_report(engine: Engine, texts: list[Text], tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    named = [Text(text.name, text.ids, f"{evil}{i % 2}") for i, text in enumerate(texts[:4])]
    run(engine, named, Plan((0.4,), (8,), 12, ("global", "auto")), evil, folder=tmp_path)
    page = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert" in page


def evaluate(*arguments: object) -> Result:
    return run_cli("evaluate", *arguments, "--prompt-tokens", 8, "--continuation-tokens", 12, "--dtype", "float32")


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("held") / "held.jsonl"
    rows = [{"text": text, "domain": "ab"[i % 2]} for i, text in enumerate(["Too short.", "Yes.", *demo_texts(8, 200)])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_from_the_command_line(artifact: Path, held: Path, tmp_path: Path) -> None:
    other = shutil.copytree(artifact, tmp_path / "other")
    given = (held, "-a", artifact, "--compare", other, "-k", 0.4, "--seed", 3)
    made = evaluate(*given, "--output", tmp_path / "out", "--json")
    assert (made.code, "2 of 10 texts are shorter than 20 tokens" in made.err) == (0, True), made.err
    rows = json.loads(made.out)
    assert rows == json.loads((tmp_path / "out" / "rows.json").read_text())
    whole = {row["policy"]: row for row in rows if row["domain"] is None}
    assert list(whole) == ["dense", *LADDER, "global@other", "similarity@other"]
    for policy in ("global", "similarity"):
        mine, theirs = (whole[name] for name in (policy, f"{policy}@other"))
        assert {k: v for k, v in mine.items() if k != "policy"} == {k: v for k, v in theirs.items() if k != "policy"}
    assert {row["domain"] for row in rows} == {None, "a", "b"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    shown = evaluate(*given[:3], "-k", 0.4, "--limit", 3, "-p", "auto", "-p", "global", "--quiet")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0].startswith("3 texts: 8 prompt tokens dense, then 12")
    assert [line.split()[0] for line in lines[2:4]] == ["auto", "global"]
    assert max(map(len, lines)) <= 110


def test_what_fails_early_leaves_no_folder(artifact: Path, held: Path, tmp_path: Path) -> None:
    """Neither its own nor those above it; one that was there stays, and what a stopped run finished does, too."""
    (tmp_path / "mine").mkdir()
    for place in ("out", "deep/down/out", "mine", "mine/out"):
        made = evaluate(held, "-a", artifact, "--limit", 2, "--domain-column", "kind", "-o", tmp_path / place)
        assert (made.code, "--domain-column" in made.err) == (2, True)
        assert [path.name for path in tmp_path.rglob("*")] == ["mine"]
    with pytest.raises(ValueError, match="stopped"), folder_for(tmp_path / "mine" / "out"):  # noqa: PT012
        Partial(tmp_path / "mine" / "out", "key").add(0, {"batch": 0})
        raise ValueError("stopped")
    assert (tmp_path / "mine" / "out" / ".partial" / "key.jsonl").is_file()


def test_texts_of_the_build_are_warned_about(artifact: Path, corpus: Path, held: Path) -> None:
    said = evaluate(corpus, "-a", artifact, "--limit", 2, "-p", "global").err
    assert said.startswith(f"warning: the artifact was built from {corpus} itself")
    assert "warning" not in evaluate(held, "-a", artifact, "--limit", 2, "-p", "global").err


def test_clusters_that_are_all_in_the_mixture(engine: Engine, texts: list[Text]) -> None:
    artifact, said = engine.artifact, list[str]()
    wide = Engine(replace(artifact, policy=replace(artifact.policy, mixture=6)))
    wide._lm, wide.embedder = engine._lm, engine.embedder
    rows = run(wide, texts[:2], Plan((0.4,), (8,), 12, ("wrong-cluster", "global")), "x", say=said.append)
    assert [row.policy for row in rows if row.domain is None] == ["dense", "global"]
    assert said == ["without wrong-cluster: all 6 clusters are in the mixture of 6"]


def test_bad_input_is_one_line(artifact: Path, held: Path, tmp_path: Path) -> None:
    small_artifacts.write(tmp_path / "random")
    (tmp_path / "file").write_text("")
    for given, words in (
        (("--compare", tmp_path / "random"), ("--compare", "one model")),
        (("--compare", tmp_path / "none"), ("no artifact at", "build-clusters")),
        (("--output", tmp_path / "file"), ("cannot write", "--output")),
        (("--policy", "best"), ("--policy is 'best'", "oracle")),
        (("--domain-column", "kind"), ("'kind'", "--domain-column")),
        (("--seed", -1), ("seed is -1",)),
        (("--limit", 1), ("--limit is 1", "at least 2")),
    ):
        made = evaluate(held, "-a", artifact, *given)
        assert (made.code, made.out, made.err.count("\n")) == (2, "", 1), made.err
        assert all(word in made.err for word in words), made.err
