"""An update that is killed goes on where it was: the bytes of one in one go, and what was done is not done again."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from breaking import sentences, shop_for
from command_line import fine, in_new_process
from conftest import run_cli, tree, write_corpus

from coreinfer import Artifact, CoreInferError, Engine
from coreinfer.settings import StatisticSettings
from pipeline.build import build_clusters
from pipeline.passages import read_rows
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings
from pipeline.updating.run import update

# ``coreinfer`` as a process that is killed when a shard is committed by the function of this name.
KILLED = """
import os, signal, sys
import cli
from pipeline.shards import tasks
commit = getattr(tasks, sys.argv[1])
def last(*given):
    commit(*given)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(tasks, sys.argv[1], last)
sys.argv[1:] = sys.argv[2:]
cli.main()
"""
SECOND = "reusing embeddings of 2 of 2 shards, recorded sums of "


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    at = shop_for(tmp_path_factory.mktemp("shop"))
    corpus = write_corpus(at / "corpus.jsonl", sentences(100))
    return BuildSettings(
        SourceSettings(str(corpus), max_tokens=64), str(at / "llama"), str(at / "bert"), 4, StatisticSettings("energy"),
        calibrate=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def before(settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact that is updated."""
    build_clusters(settings, place := tmp_path_factory.mktemp("before") / "made", ways=Ways(cache=False))
    return place


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards."""
    return write_corpus(tmp_path_factory.mktemp("more") / "more.jsonl", sentences(700)[100:])


@pytest.fixture(scope="module")
def whole(before: Path, more: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In one go, in one shard."""
    place = tmp_path_factory.mktemp("whole") / "made"
    added(before, more, place, Ways(shard_passages=1024, cache=False))
    assert list(place.parent.iterdir()) == [place]
    return tree(place)


def added(artifact: Path, texts: Path, place: Path, ways: Ways | None = None) -> list[str]:
    """Update; what was said."""
    said = list[str]()
    update(Engine.load(artifact), SourceSettings(str(texts), max_tokens=64), place, say=said.append, ways=ways)
    return said


def done(log: Path) -> list[tuple[str, int]]:
    """The shards of each stage, as they were done."""
    rows = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    return [(row["stage"], row["shard"]) for row in rows if row["what"] == "done"]


@pytest.mark.parametrize(
    ("commit", "first", "rest", "line"),
    [
        ("write_embeddings", [("embed", 0)], [("embed", 1), ("record", 0), ("record", 1)],
         "reusing embeddings of 1 of 2 shards"),
        ("write_sums", [("embed", 0), ("embed", 1), ("record", 0)], [("record", 1)], f"{SECOND}1 of 2 shards"),
    ],
)  # fmt: skip
def test_killed_and_run_again(
    before: Path, more: Path, whole: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commit: str,
    first: list[tuple[str, int]], rest: list[tuple[str, int]], line: str,
) -> None:  # fmt: skip
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as here
    log, place = tmp_path / "log.jsonl", tmp_path / "made"
    command = ("update", before, more, "-o", place, "--log", log)
    assert in_new_process(KILLED, commit, *command).code == -9
    assert done(log) == first[:-1]  # the last one was committed, and nobody heard of it
    assert not place.exists()
    again = fine(run_cli(*command))
    assert done(log) == first[:-1] + rest
    assert line in again.err.splitlines()
    assert tree(place) == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl", "made"]
    assert f"{SECOND}2 of 2 shards" in fine(run_cli(*command, "--overwrite")).err.splitlines()
    assert done(log) == first[:-1] + rest
    assert tree(place) == whole


def test_only_the_same_is_reused(
    settings: BuildSettings, before: Path, more: Path, new_cache: Path, tmp_path: Path
) -> None:
    """Other texts are embedded anew; other centroids take the embeddings over, and what belongs to them is recorded."""
    assert added(before, more, tmp_path / "first") == []
    texts = sentences(700)[100:]
    changed = write_corpus(tmp_path / "changed.jsonl", [*texts[:-1], f"{texts[-1]} Then it ends."])
    assert added(before, changed, tmp_path / "second") == []
    facts = facts_of(new_cache, "record")
    assert (len(facts_of(new_cache, "embed")), len(facts)) == (2, 2)
    moved = tmp_path / "moved"
    build_clusters(replace(settings, source=replace(settings.source, limit=50)), moved, ways=Ways(cache=False))
    assert added(moved, more, tmp_path / "third") == ["reusing embeddings of 2 of 2 shards"]
    (new,) = [each for each in facts_of(new_cache, "record") if each not in facts]
    assert [{name for name in new if new[name] != each[name]} for each in facts if each["corpus"] == new["corpus"]] == [
        {"cluster of each passage"}
    ]
    added(moved, more, tmp_path / "alone", Ways(cache=False))
    assert tree(tmp_path / "third") == tree(tmp_path / "alone")


def facts_of(cache: Path, stage: str) -> list[dict[str, Any]]:
    """What the stores of a stage were begun with."""
    return [json.loads(path.read_text("utf-8"))["facts"] for path in cache.glob(f"builds/{stage}-*/key.json")]


def test_a_build_and_an_update_share_embeddings(
    settings: BuildSettings, before: Path, more: Path, whole: dict[str, str], tmp_path: Path
) -> None:
    source = SourceSettings(str(more), max_tokens=64)
    build_clusters(replace(settings, source=source), tmp_path / "built")
    assert added(before, more, tmp_path / "made") == ["reusing embeddings of 2 of 2 shards"]
    assert tree(tmp_path / "made") == whole


def test_nothing_is_kept_if_nothing_shall_be(before: Path, more: Path, new_cache: Path, tmp_path: Path) -> None:
    fine(run_cli("update", before, more, "-o", tmp_path / "made", "--no-cache", "--limit", 20))
    assert list(new_cache.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_shard_that_cannot_be_read_is_not_left_out(
    before: Path, more: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a caller allows a build; what was done before it is kept."""

    def spoilt(path: Path, rows: range) -> list[str]:
        if rows.start:
            raise OSError("input/output error")
        return read_rows(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shards.tasks.read_rows", spoilt)
        with pytest.raises(CoreInferError) as caught:
            added(before, more, tmp_path / "made", Ways(bad_shards=1))
    assert str(caught.value) == (
        "shard 1 (passages 512 to 599) cannot be done: its texts cannot be read (input/output error); leave those "
        "passages out; what was done is kept"
    )
    assert not list(tmp_path.iterdir())
    assert added(before, more, tmp_path / "made") == ["reusing embeddings of 1 of 2 shards"]


def test_what_ran_in_smaller_batches_is_noted(before: Path, more: Path, tmp_path: Path) -> None:
    """Its last bits may be others."""
    engine = Engine.load(before)
    embed = engine.embedder.embed

    def small(texts: list[str]) -> Any:
        if len(texts) > 4:
            raise MemoryError
        return embed(texts)

    engine.embedder.embed = small
    update(engine, SourceSettings(str(more), max_tokens=64, limit=9), tmp_path / "made")
    opened = Artifact.load(tmp_path / "made")
    assert opened.calibration["updates"][0]["in_smaller_batches"] == {"embed": [0]}
    added(tmp_path / "made", more, tmp_path / "again")
    assert ["in_smaller_batches" in note for note in Artifact.load(tmp_path / "again").calibration["updates"]] == [
        True, False,
    ]  # fmt: skip
