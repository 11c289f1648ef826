"""Builds over several shards, in parts and again: always the bytes of one in one go. Tiny models, real blocks."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from breaking import sentences, shop_for
from conftest import run_cli, tree, write_corpus

from coreinfer import Artifact, CoreInferError
from coreinfer.claims import claimed, raise_busy
from coreinfer.settings import StatisticSettings
from pipeline.build import Report, build_clusters
from pipeline.data import Candidates
from pipeline.folder import appearing
from pipeline.forecast import forecast
from pipeline.merge import merge
from pipeline.passages import read_rows
from pipeline.passes import PartReport, run_pass
from pipeline.settings import BuildSettings
from pipeline.shards import parts
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
    assert part(settings, work, "embed", 1, 2).done == 1
    with pytest.raises(
        CoreInferError, match=r"embeddings of 1 of 2 shards are missing in .*embed \(0\): .*--pass embed"
    ):
        part(settings, work, "record", 1, 2)
    assert part(settings, work, "embed", 0, 2).done == 2
    assert part(settings, work, "record", 1, 2).done == 1
    with pytest.raises(CoreInferError, match=r"recorded sums of 1 of 2 shards are missing in .*record \(0\)"):
        merge(work, tmp_path / "made")
    with pytest.raises(CoreInferError, match=r"begun with statistic.kind 'energy', here it is 'count'"):
        part(replace(settings, statistic=StatisticSettings("count")), work, "record")
    assert part(settings, work, "record").done == 2  # all that is missing, whoever had it to do
    assert not (tmp_path / "made").exists()
    merge(work, tmp_path / "made")
    assert tree(tmp_path / "made") == whole


def test_a_pass_that_runs_twice_on_a_machine_waits(
    settings: BuildSettings, whole: dict[str, str], work: Path, tmp_path: Path
) -> None:
    """Both would write the same running sums."""
    part(settings, work, "embed")
    place, said = work / "record", list[str]()
    place.mkdir()
    with ThreadPoolExecutor(1) as other:
        with claimed(place / Ways(work=work).slot, raise_busy):
            second = other.submit(lambda: run_pass(settings, Ways(work=work, only="record"), say=said.append))
            while not any("another build is at the same work (record)" in line for line in said):
                assert not second.done()
                time.sleep(0.01)
        assert second.result().done == 2
    merge(work, tmp_path / "made")
    assert tree(tmp_path / "made") == whole


def test_one_machine_finds_the_clusters(settings: BuildSettings, work: Path, tmp_path: Path) -> None:
    """The others use those that are there; a machine that would find others is told so."""
    part(settings, work, "embed")
    part(settings, work, "record", 0, 2)
    place = next((work / "embed").glob("clusters-*"))
    before = place.stat().st_mtime_ns
    part(settings, work, "record", 1, 2)
    assert place.stat().st_mtime_ns == before
    options = Candidates([np.eye(2, dtype=np.float32)], np.array([[0, 1]], np.int32))
    parts.begin_clusters(tmp_path / "clusters", "key", options)
    assert parts.begin_clusters(tmp_path / "clusters", "key", options).labels.tolist() == [[0, 1]]
    with pytest.raises(CoreInferError, match="another machine found other clusters from the same embeddings"):
        parts.begin_clusters(tmp_path / "clusters", "key", options.without(np.array([1])))


def test_what_cannot_be_read_is_not_said_to_be_written(
    settings: BuildSettings, new_cache: Path, tmp_path: Path
) -> None:
    build(settings, tmp_path / "made")
    (folder,) = (new_cache / "builds").glob("embed-*")
    for name in ("0000001.npy", "key.json"):
        (folder / name).unlink()
        (folder / name).mkdir()
        with pytest.raises(CoreInferError, match=rf"^cannot read {folder / name}: Is a directory; remove it, and run"):
            build(settings, tmp_path / "other")
        (folder / name).rmdir()
    build(settings, tmp_path / "other")
    assert tree(tmp_path / "other") == tree(tmp_path / "made")


def test_a_damaged_shard_is_named(settings: BuildSettings, work: Path, tmp_path: Path) -> None:
    part(settings, work, "embed")
    place = work / "embed" / "0000001.npy"
    place.write_bytes(place.read_bytes()[::-1])
    with pytest.raises(CoreInferError, match=r"1 of 2 shards are missing in .* \(1; 1 of them damaged, or made with"):
        merge(work, tmp_path / "made")


@pytest.mark.parametrize("stage", ["embed", "record"])
def test_a_bad_shard_is_left_out(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """If that is allowed; it is counted, named, and in the evidence. A rerun in which it is readable has it again."""
    reads, read = list[int](), read_rows

    def spoilt(path: Path, rows: range) -> list[str]:
        reads.append(rows.start)
        if rows.start == 512 and (stage == "embed" or reads.count(512) > 1):
            raise OSError("input/output error")
        return read(path, rows)

    monkeypatch.setattr("pipeline.shards.tasks.read_rows", spoilt)
    with pytest.raises(
        CoreInferError,
        match=r"^shard 1 \(passages 512 to 599\) cannot be done: its texts cannot be read .*shards 1;",
    ):
        build(settings, tmp_path / "made")
    reads[:] = [] if stage == "embed" else [512]
    report, said = build(settings, tmp_path / "made", Ways(bad_shards=1))
    assert report.manifest.passages < 512
    assert report.stages[stage]["dropped"] == {"bad shard": 88}
    assert f"{stage}: shard 1 is left out: its texts cannot be read (input/output error)" in said
    evidence = Artifact.load(tmp_path / "made").calibration
    assert evidence["bad_shards"] == {stage: [1]}
    assert (evidence["k_means"]["passages"] > 512) == (stage == "record")  # k-means saw what was lost only later


def test_files_that_cannot_be_read_are_left_out(settings: BuildSettings, tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name in ("a", "b", "d"):
        write_corpus(folder / f"{name}.jsonl", sentences(40))
    with write_corpus(folder / "c.jsonl", sentences(70)).open("a", encoding="utf-8") as file:
        file.write("{")
    (folder / "e.jsonl").write_bytes('{"text": "Grüße aus der Küche, in Latin-1."}\n'.encode("latin-1") * 90)
    some = replace(settings, source=replace(settings.source, dataset=str(folder)))
    with pytest.raises(
        CoreInferError, match=r"c.jsonl:71 is bad JSON .* a line, or add --max-bad-shards 1 to leave out "
    ):
        build(some, tmp_path / "made")
    with pytest.raises(
        CoreInferError, match=r"^e.jsonl is not UTF-8 in 64 of .* line 1: .* --max-bad-shards 2 to leave"
    ):
        build(some, tmp_path / "made", Ways(bad_shards=1))
    report, _ = build(some, tmp_path / "made", Ways(bad_shards=2))
    assert (report.counts.records, list(report.counts.bad_files)) == (190, ["c.jsonl", "e.jsonl"])
    assert report.counts.sentence().endswith("; left out, whole or in part: c.jsonl, e.jsonl")
    assert Artifact.load(tmp_path / "made").calibration["bad_shards"] == {"files": ["c.jsonl", "e.jsonl"]}


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
