"""A build by the function: what is held out, what is chosen, what is refused. A tiny model and embedder."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import write_corpus
from small_models import save_llama

from coreinfer import Artifact, CoreInferError
from coreinfer.manifest import Manifest
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.sources import SourceSettings

TOPICS = ("The boat sails", "The bread bakes", "A comet returns", "The river floods", "An engine starts")


def sentence(i: int) -> str:
    return f"{TOPICS[i % 5]} on day {i} of the year {1000 + 7 * i % 999}."


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a context of 64 tokens."""
    return save_llama(tmp_path_factory.mktemp("models") / "llama", 2, 48, 64)


def settings_for(llama: Path, shop: Path, corpus: Path) -> BuildSettings:
    return BuildSettings(SourceSettings(str(corpus), max_tokens=64), str(llama), str(shop / "bert"))


def build(settings: BuildSettings, place: Path) -> tuple[Manifest, list[str]]:
    said: list[str] = []
    return build_clusters(settings, place, say=said.append).manifest, said


def test_the_number_of_clusters_is_chosen_on_what_was_held_out(llama: Path, shop: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "some.jsonl", [sentence(i) for i in range(80)])
    made, said = build(settings_for(llama, shop, corpus), tmp_path / "made")
    assert made.passages == 76
    assert said == [
        "the threshold is set by these texts alone, not calibrated: that needs 20 held-out texts, here are 4",
        "calibration is left out: it needs 24 held-out texts of 128 tokens, here are 0 of 4: the policies' numbers "
        "are not measured by loss, --max-loss finds no curve; build with --passage-tokens 128 or more, or run "
        "`coreinfer "
        f"calibrate {tmp_path / 'made'} TEXTS` on others",
    ]
    evidence = Artifact.load(tmp_path / "made").calibration
    assert (evidence["held_out_passages"], evidence["duplicates_left_out"]) == (4, 0)
    assert [row["clusters"] for row in evidence["clusters_tried"]][:2] == [4, 8]
    assert made.clusters in [row["clusters"] for row in evidence["clusters_tried"]]


def test_duplicates_and_pieces_of_what_is_held_out_are_not_recorded(llama: Path, shop: Path, tmp_path: Path) -> None:
    """Every text twice, some records of several passages: what is held out and what is recorded are not all."""
    texts = [sentence(i) for i in range(40)] + [
        " ".join(sentence(i) for i in range(n, n + 6)) for n in range(50, 290, 6)
    ]
    corpus = write_corpus(tmp_path / "some.jsonl", texts + texts)
    report = build_clusters(settings_for(llama, shop, corpus), tmp_path / "made")
    evidence = Artifact.load(tmp_path / "made").calibration
    assert report.counts.split > 0
    assert evidence["duplicates_left_out"] > 0
    assert evidence["held_out_passages"] + evidence["duplicates_left_out"] + report.manifest.passages <= (
        report.counts.passages
    )


def test_a_single_record_is_built_from_and_that_is_said(llama: Path, shop: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "book.jsonl", [" ".join(sentence(i) for i in range(90))])
    made, said = build(settings_for(llama, shop, corpus), tmp_path / "made")
    assert made.passages >= 20
    assert made.clusters == made.passages // 8
    assert said[:-1] == [
        "no record can be spared, so nothing is held out: the number of clusters is not measured",
        "the threshold is set by these texts alone, not calibrated: that needs 20 held-out texts, here are 0",
    ]
    assert "24 held-out texts of 128 tokens, here are 0 of 0" in said[-1]
    assert json.loads((tmp_path / "made" / "calibration.json").read_text())["held_out_passages"] == 0


def test_passages_longer_than_can_be_recorded_are_refused(llama: Path, shop: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "some.jsonl", [sentence(i) for i in range(20)])
    fits = settings_for(llama, shop, corpus)
    with pytest.raises(CoreInferError, match=r"^--passage-tokens is 65, but 64 tokens .*llama.*: give at most 64$"):
        build_clusters(replace(fits, source=replace(fits.source, max_tokens=65)), tmp_path / "made")
    assert [path.name for path in tmp_path.iterdir()] == ["some.jsonl"]
    assert build(fits, tmp_path / "made")[0].model.max_tokens == 64
