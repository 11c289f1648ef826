"""Builds over several shards, in parts and again: always the bytes of one in one go. Tiny models, real blocks."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from breaking import sentences, shop_for
from conftest import run_cli, tree, write_corpus

from coreinfer import CoreInferError
from coreinfer.settings import StatisticSettings
from pipeline.build import Report, build_clusters
from pipeline.folder import appearing
from pipeline.forecast import forecast
from pipeline.passes import PartReport, run_pass
from pipeline.settings import BuildSettings
from pipeline.shards.plan import Part
from pipeline.shards.ways import Pass, Ways
from pipeline.sources import SourceSettings

ENERGY = StatisticSettings("energy")


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    """Two shards."""
    at = shop_for(tmp_path_factory.mktemp("shards"))
    corpus = write_corpus(at / "corpus.jsonl", sentences(600))
    return BuildSettings(
        SourceSettings(str(corpus), max_tokens=64), str(at / "llama"), str(at / "bert"), 4, ENERGY, calibrate=False
    )


@pytest.fixture(scope="module")
def whole(settings: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In one go, in shards of the whole corpus, with nothing kept."""
    place = tmp_path_factory.mktemp("whole") / "made"
    report = build_clusters(settings, place, ways=Ways(shard_passages=1024, cache=False))
    assert (report.shards, list(place.parent.iterdir())) == (1, [place])
    return tree(place)


def build(settings: BuildSettings, place: Path, ways: Ways | None = None) -> tuple[Report, list[str]]:
    said = list[str]()
    return build_clusters(settings, place, say=said.append, ways=ways), said


def test_what_is_embedded_serves_other_builds(
    settings: BuildSettings, whole: dict[str, str], new_cache: Path, tmp_path: Path
) -> None:
    """Another K takes the embeddings, another statistic the clusters too, another keep all that was recorded."""
    first, said = build(settings, tmp_path / "first")
    assert (tree(tmp_path / "first"), first.shards, said) == (whole, 2, [])
    assert [path.name.split("-")[0] for path in sorted((new_cache / "builds").iterdir())] == ["embed", "record"]
    assert build(replace(settings, statistic=StatisticSettings("griffin")), tmp_path / "griffin")[1] == [
        "reusing embeddings of 2 of 2 shards, clusters"
    ]
    assert build(replace(settings, clusters=3), tmp_path / "three")[1] == ["reusing embeddings of 2 of 2 shards"]
    assert build(replace(settings, keep=0.2), tmp_path / "fewer")[1] == [
        "reusing embeddings of 2 of 2 shards, clusters, recorded sums of 2 of 2 shards"
    ]


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    yield (place := tmp_path / "work")
    assert not list(place.glob(".scratch*"))


def part(settings: BuildSettings, work: Path, only: Pass, number: int = 0, of: int = 1) -> PartReport:
    return run_pass(settings, Ways(work=work, only=only, part=Part(number, of)))


def test_two_machines_make_one_artifact(
    settings: BuildSettings, whole: dict[str, str], work: Path, tmp_path: Path
) -> None:
    """Pass after pass; whoever comes too early, or with other settings, is told what is missing or differs."""
    ways = Ways(work=work)
    assert part(settings, work, "embed", 1, 2).done == 1
    with pytest.raises(
        CoreInferError, match=r"embeddings of 1 of 2 shards are missing in .*embed \(0\): .*--pass embed"
    ):
        part(settings, work, "record", 1, 2)
    assert part(settings, work, "embed", 0, 2).done == 2
    assert part(settings, work, "record", 1, 2).done == 1
    with pytest.raises(CoreInferError, match=r"recorded sums of 1 of 2 shards are missing in .*record \(0\)"):
        build(settings, tmp_path / "made", ways)
    with pytest.raises(CoreInferError, match=r"made with statistic.kind 'energy', here it is 'count'"):
        part(replace(settings, statistic=StatisticSettings("count")), work, "record")
    assert part(settings, work, "record").done == 2  # all that is missing, whoever had it to do
    assert not (tmp_path / "made").exists()
    build(settings, tmp_path / "made", ways)
    assert tree(tmp_path / "made") == whole


def test_one_output_has_one_writer(settings: BuildSettings, tmp_path: Path) -> None:
    with appearing(tmp_path / "made", overwrite=False) as (made, _):
        (made / "manifest.json").write_text("{}")
        with pytest.raises(CoreInferError, match=r"another process is writing .*made: wait until it ends, or choose"):
            build(settings, tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_forecast_writes_nothing(settings: BuildSettings, new_cache: Path, tmp_path: Path) -> None:
    made = forecast(settings, Ways(workers=2))
    assert (made.shards, made.clusters) == (2, [4])
    assert [(need.stage, need.engine) for need in made.needs] == [
        ("read passages", "one process"), ("embed", "one process"), ("embed", "2 workers"), ("cluster", "one process"),
        ("record", "one process"), ("record", "2 workers"), ("write", "one process"),
    ]  # fmt: skip
    assert all(need.seconds > 0 and need.memory > 0 and need.disk > 0 for need in made.needs)
    assert list(new_cache.iterdir()) == []


TWO = Part(0, 2)
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"workers": 0}, "--workers is 0"), ({"shard_passages": 100}, "--shard-passages is 100: give a multiple of 512"),
    ({"only": "embed"}, "add the --work FOLDER"), ({"part": TWO}, "add the --work FOLDER"),
    ({"work": Path("w"), "part": TWO}, "add --pass embed"), ({"work": Path("w"), "only": "all"}, "--pass is 'all'"),
    ({"work": Path("w"), "cache": False}, "leave out one of them"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_ways_that_contradict_each_other(given: dict[str, Any], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        Ways(**given)


def test_a_cache_that_cannot_be_written(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COREINFER_CACHE", str(tmp_path / "file"))
    common = ("build-clusters", settings.source.dataset, "-m", settings.model, "-o", tmp_path / "made")
    made = run_cli(*common, "--passage-tokens", 64)
    assert (made.code, made.err.count("\n")) == (2, 1)
    assert "file is a file, no folder; name another folder in COREINFER_CACHE, or add --no-cache" in made.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
