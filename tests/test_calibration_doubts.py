"""What few held-out texts say: doubt as the engine itself would see it, and a threshold that throws nothing away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import write_corpus
from small_models import save_llama

from coreinfer import Artifact, Engine
from coreinfer.capture import Capture, valid_tokens
from coreinfer.match import nearest
from coreinfer.models import bos_of
from coreinfer.verified import verify
from pipeline.build import build_clusters
from pipeline.calibration import doubts, numbers
from pipeline.calibration.doubts import NEEDED, PROMPTS, RULE, from_few
from pipeline.calibration.run import LEAST, usable
from pipeline.calibration.sample import Lab
from pipeline.holdout import hold_out
from pipeline.passages import Passage, texts_at, write_passages
from pipeline.settings import BuildSettings
from pipeline.sources import SourceSettings
from pipeline.threshold import GUESSED

WORDS = ("river boat water sail", "oven bread flour bakes", "comet orbit night star", "engine wheel turns fuel")
COUNT = 60


def text(i: int) -> str:
    """About a hundred tokens on one of four topics."""
    rng = np.random.default_rng(i)
    return f"Day {i}: " + " ".join(rng.choice(WORDS[i % 4].split(), 70))


@pytest.fixture(scope="module")
def small(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> BuildSettings:
    at = tmp_path_factory.mktemp("few")
    corpus = write_corpus(at / "corpus.jsonl", [text(i) for i in range(COUNT)])
    model = save_llama(at / "llama", 2, 48, 128)
    source = SourceSettings(str(corpus), max_tokens=128)
    return BuildSettings(source, str(model), str(shop / "bert"), clusters=4, dtype="float32")


@pytest.fixture(scope="module")
def built(small: BuildSettings, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    build_clusters(small, place := tmp_path_factory.mktemp("few") / "made")
    return Engine.load(place, dtype="float32")


@pytest.fixture(scope="module")
def held(built: Engine, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The ids of the texts that the build held out."""
    path = tmp_path_factory.mktemp("few") / "passages.parquet"
    write_passages((Passage(i, text(i), f"corpus:{i}") for i in range(COUNT)), path)
    return usable(built.tokenizer, texts_at(path, hold_out(path, 0).held), NEEDED)


def seen(engine: Engine, ids: torch.Tensor) -> tuple[float, float]:
    """(doubt of one prompt, similarity of its match) as they are online: ids (1, P)."""
    words = engine.tokenizer.decode(ids[0], skip_special_tokens=True)
    match = nearest(engine.index, engine.embedder.embed([words]), 4)[0]
    with Capture(engine.model, engine.artifact.manifest.statistic) as capture, torch.inference_mode():
        capture.expect(valid_tokens(ids, None, bos_of(engine.model)))
        engine.model(input_ids=ids)
        prompt = capture.shares()[0]
    prior = engine.artifact.prior_of(match.clusters, match.similarities)
    return engine.artifact.doubt(prompt, prior), match.similarity


def test_doubt_is_what_the_engine_sees_of_the_held_out_prompts(built: Engine, held: torch.Tensor) -> None:
    assert 0 < len(held) < LEAST
    long, short = ([seen(built, row[None, :p]) for row in held] for p in PROMPTS)
    doubt, fall = numbers.doubts([d for d, _ in long], [d for d, _ in short], PROMPTS[0] / PROMPTS[1])
    policy = built.artifact.policy
    assert (policy.doubt, policy.doubt_fall) == (pytest.approx(doubt, abs=1e-3), pytest.approx(fall, abs=1e-2))
    assert 0 < policy.doubt < 1
    assert policy.threshold == policy.strong <= min(similarity for _, similarity in long)


def test_the_corpus_own_prompts_do_not_fall_back(built: Engine, held: torch.Tensor) -> None:
    for row in held:
        made = built.predict(built.tokenizer.decode(row[: PROMPTS[0]], skip_special_tokens=True))
        assert (made.source, made.worth) == ("hybrid", pytest.approx(built.artifact.policy.n0, rel=0.1))
        assert "reaches the threshold" in made.reason
        assert made.reason.endswith(", which was not calibrated")


def test_what_it_was_seen_from_is_stored(built: Engine, held: torch.Tensor) -> None:
    found = Artifact.load(built.artifact.root).calibration
    assert found["measured"]["texts"] == len(held)
    assert found["measured"]["doubts"]["prompt_tokens"] == list(PROMPTS)
    assert found["threshold_rule"] == GUESSED  # lower than what so few similarities say
    assert "curve" not in found
    assert verify(built.artifact.root).manifest == built.artifact.manifest


def test_the_guess_counts_only_where_similarities_are_few(
    built: Engine, held: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = Lab(built.model, built.tokenizer, built.embedder, built.artifact)
    count = len(held) * len(built.artifact.centroids)
    for few, rule in ((count + 1, GUESSED), (count, RULE)):
        monkeypatch.setattr(doubts, "FEW", few)
        policy, evidence = from_few(lab, held)
        assert evidence["threshold_rule"] == rule
        assert (policy.threshold == built.artifact.policy.threshold) == (rule == GUESSED)


def test_without_a_text_that_is_long_enough_nothing_doubts(small: BuildSettings, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "short.jsonl", [text(i)[:80] for i in range(COUNT)])
    said = list[str]()
    short = replace(small, source=replace(small.source, dataset=str(corpus)))
    build_clusters(short, tmp_path / "made", say=said.append)
    found = Artifact.load(tmp_path / "made")
    assert (found.policy.doubt, found.policy.doubt_fall) == (1.0, 0.0)
    assert "measured" not in found.calibration
    assert found.calibration["threshold_rule"] == GUESSED
    assert "the threshold is set by these texts alone, not calibrated: that needs 20 held-out texts, here are 3" in said
    assert "24 held-out texts of 128 tokens, here are 0 of 3" in said[-1]
