"""A build that is stopped while it measures on held-out texts: it goes on there. `make test-faults`."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import tree, write_corpus
from numpy.typing import NDArray
from small_models import save_bert, save_llama

from coreinfer.settings import StatisticSettings
from pipeline.build import Report, build_clusters
from pipeline.calibration import budgets, numbers, run
from pipeline.passes import run_pass
from pipeline.settings import BuildSettings
from pipeline.shards import measured
from pipeline.shards.arrays import write_arrays
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

TOPICS = ("The boat sails", "The bread bakes", "A comet returns", "The river floods", "An engine starts")
WRITTEN = write_arrays


class Stopped(Exception):
    """In place of a kill: what was written before stays, and nothing else."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    """Of 620 passages with more than 128 tokens, 31 are held out."""
    at = tmp_path_factory.mktemp("shop")
    model = save_llama(at / "llama", 2, 48, 256)
    save_bert(at / "bert")
    texts = [
        " ".join(f"{TOPICS[(i + j) % 5]} on day {i + j} of {1000 + 7 * i}." for j in range(16)) for i in range(620)
    ]
    corpus = write_corpus(at / "corpus.jsonl", texts)
    return BuildSettings(SourceSettings(str(corpus), max_tokens=256), str(model), str(at / "bert"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test begins with an empty one."""
    (place := tmp_path / "cache").mkdir()
    monkeypatch.setenv("COREINFER_CACHE", str(place))
    return place


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers to try, and so time; every step is there."""
    monkeypatch.setattr(budgets, "KEEPS", (0.2, 0.6))
    monkeypatch.setattr(numbers, "MIXTURES", numbers.MIXTURES[:2])
    monkeypatch.setattr(numbers, "N0", (256.0,))
    monkeypatch.setattr(run, "CURVE", (0.4, 0.8))
    monkeypatch.setattr(run, "MOST", 24)


def build(settings: BuildSettings, place: Path, ways: Ways | None = None) -> tuple[Report, list[str]]:
    """And the steps that it measured."""
    steps = list[str]()

    def spy(path: Path, key: str, facts: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
        WRITTEN(path, key, facts, arrays)
        steps.append(facts["step"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measured, "write_arrays", spy)
        return build_clusters(settings, place, overwrite=True, ways=ways), steps


def test_it_goes_on_where_it_was_stopped(
    settings: BuildSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = build(settings, tmp_path / "whole", Ways(cache=False))
    assert whole.manifest.passages > 500
    assert (len(steps), steps[:3], steps[-1]) == (13, ["choose statistic", "choose K", "layer budgets"], "curve")
    for at in (1, 6, len(steps)):
        done, made = list[str](), tmp_path / f"made-{at}"

        def stop(path: Path, key: str, facts: dict[str, Any], arrays: Sequence[NDArray[Any]]) -> None:
            if len(done) == at:  # noqa: B023
                raise Stopped
            WRITTEN(path, key, facts, arrays)
            done.append(facts["step"])  # noqa: B023

        monkeypatch.setenv("COREINFER_CACHE", str(mine := tmp_path / f"cache-{at}"))
        monkeypatch.setattr(measured, "write_arrays", stop)
        if at < len(steps):
            with pytest.raises(Stopped):
                build_clusters(settings, made)
            assert not (made).exists()
        else:
            build_clusters(settings, made)
        assert done == steps[:at]
        monkeypatch.setattr(measured, "write_arrays", WRITTEN)
        assert build(settings, made)[1] == steps[at:]
        assert tree(made) == tree(tmp_path / "whole")
        assert {path.name.split("-")[0] for path in (mine / "builds").iterdir()} == {"embed", "record", "measure"}


def test_another_keep_measures_what_it_touches(settings: BuildSettings, cache: Path, tmp_path: Path) -> None:
    fixed = replace(settings, statistic=StatisticSettings("energy"), clusters=4)
    steps = build(fixed, tmp_path / "first")[1]
    again, anew = build(replace(fixed, keep=0.3), tmp_path / "again")
    assert again.reused == {"embeddings": 2, "recorded sums": 2, "measurements": 2}
    assert [step for step in steps if step not in anew] == ["layer budgets", "gradients"]


def test_machines_that_share_a_folder_keep_it_there(settings: BuildSettings, cache: Path, tmp_path: Path) -> None:
    for only in ("embed", "record"):
        run_pass(settings, Ways(work=tmp_path / "work", only=only))
    assert [path.name.partition("-")[0] for path in (tmp_path / "work" / "measure").glob("choose*")] == ["choose"]
    report, steps = build(settings, tmp_path / "made", Ways(work=tmp_path / "work"))
    assert steps[0] == "choose K"
    assert report.manifest.passages > 500
    assert not list(cache.iterdir())
