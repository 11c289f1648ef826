"""What a build says of its time when some of it was done before: of the rest alone, and what is done is not timed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from breaking import sentences, shop_for
from conftest import write_corpus

from coreinfer import CoreInferError
from coreinfer.settings import StatisticSettings
from pipeline.build import build_clusters
from pipeline.passages import read_rows
from pipeline.record import Recorder
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

Foretold = tuple[list[str], list[str]]  # the stages that were timed, and what was said


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    """Two shards, of 512 and 88 passages."""
    at = shop_for(tmp_path_factory.mktemp("left"))
    source = SourceSettings(str(write_corpus(at / "corpus.jsonl", sentences(600))), max_tokens=64)
    energy = StatisticSettings("energy")
    return BuildSettings(source, str(at / "llama"), str(at / "bert"), 4, energy, calibrate=False)


@pytest.fixture
def foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Foretold]:
    """Build, where each stage needs 6 s a passage."""
    timed, said = list[str](), list[str]()

    def needed(passages: Path, total: int, work: Callable[[list[str]], object], recorder: Recorder) -> float:
        work(["Some words."])
        timed.append({"embed": "embed", "rehearse": "record"}[work.__name__])
        return 6.0 * total

    def build(settings: BuildSettings, ways: Ways | None = None) -> Foretold:
        timed.clear()
        said.clear()
        build_clusters(settings, tmp_path / f"{len(list(tmp_path.iterdir()))}", say=said.append, ways=ways)
        return timed.copy(), [line for line in said if " passages: " in line]

    monkeypatch.setattr("pipeline.build.seconds_needed", needed)
    return build


def test_what_is_left_is_estimated(settings: BuildSettings, foretold: Callable[..., Foretold], new_cache: Path) -> None:
    assert foretold(settings) == (["embed", "record"], ["600 passages: about 2 h to embed and record them"])
    assert foretold(settings) == foretold(replace(settings, keep=0.2)) == ([], [])
    griffin = replace(settings, statistic=StatisticSettings("griffin"))
    assert foretold(griffin) == (["record"], ["600 passages: about 60 min to record them"])
    next(new_cache.rglob("0000001.npy")).unlink()
    assert foretold(settings) == (["embed"], ["600 passages: about 9 min to embed 88 of them"])
    next(new_cache.rglob("0000001.npy")).unlink()
    both = ["600 passages: about 69 min to embed 88 of them and record them"]
    assert foretold(replace(settings, clusters=3)) == (["embed", "record"], both)
    alone = ["600 passages: about 2 h to embed and record them in one process"]
    assert foretold(settings, Ways(cache=False, workers=2))[1] == alone


def test_so_is_the_rest_of_a_recording(
    settings: BuildSettings, foretold: Callable[..., Foretold], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a build that ended before its last shard was recorded."""
    reads = list[int]()

    def spoilt(path: Path, rows: range) -> list[str]:
        reads.append(rows.start)
        if reads.count(512) > 1:
            raise OSError("input/output error")
        return read_rows(path, rows)

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.shards.tasks.read_rows", spoilt)
        with pytest.raises(CoreInferError, match="shard 1 "):
            foretold(settings)
    assert foretold(settings) == (["record"], ["600 passages: about 9 min to record 88 of them"])
