"""A forecast is of the whole dataset, wherever its long texts are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import write_corpus
from small_models import save_bert, save_llama

from coreinfer.embedder import Embedder
from coreinfer.settings import StatisticSettings
from pipeline import forecast
from pipeline.holdout import held_out_of
from pipeline.needs import Sizes, needs
from pipeline.passages import WINDOW
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

SHORT, LONG = "The tide is out on day {}. ", "The boats lie on the sand until the evening. " * 16


class Watched:
    """What a forecast worked on: sizes, and texts that it embedded, a call each."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes, self.embedded = list[Sizes](), list[list[str]]()
        embed = Embedder.embed

        def needed(size: Sizes, *rest: Any) -> Any:
            self.sizes.append(size)
            return needs(size, *rest)

        def embedded(embedder: Embedder, texts: list[str]) -> Any:
            self.embedded.append(texts)
            return embed(embedder, texts)

        patch.setattr(forecast, "needs", needed)
        patch.setattr(Embedder, "embed", embedded)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("forecast")
    save_llama(at / "llama", 2, 48, 256)
    save_bert(at / "bert")
    return at


def foretold(shop: Path, corpus: Path) -> forecast.Forecast:
    statistic = StatisticSettings("energy")
    settings = BuildSettings(SourceSettings(str(corpus)), str(shop / "llama"), str(shop / "bert"), 4, statistic)
    return forecast.forecast(settings, Ways())


def test_a_dataset_sorted_by_length_is_foretold_by_all_of_it(shop: Path, watched: Watched, tmp_path: Path) -> None:
    """Its first window has no long text."""
    texts = [SHORT.format(i).strip() for i in range(WINDOW + 100)] + [LONG + str(i) for i in range(500)]
    made = foretold(shop, write_corpus(tmp_path / "corpus.jsonl", texts))
    (size,) = watched.sizes
    assert (size.passages, size.text) == (len(texts), len("".join(texts).encode()))
    assert size.usable == pytest.approx(held_out_of(len(texts)) * 500 / len(texts), abs=1)
    assert made.needs[-1].stage == "calibrate"
    timed, *_, longest = [found for found in watched.embedded if len(found) > 1]
    mean = np.mean([len(text) for text in texts])
    assert np.mean([len(text) for text in timed]) == pytest.approx(mean, rel=0.05)
    assert {len(text) for text in longest} <= {len(LONG) + digits for digits in (1, 2, 3)}


def test_the_longest_text_is_run_wherever_it_is(shop: Path, watched: Watched, tmp_path: Path) -> None:
    """Memory at the most is memory with it: one in a thousand is in no small sample."""
    texts = [SHORT.format(i).strip() for i in range(WINDOW + 1000)]
    texts[WINDOW + 501] = LONG
    foretold(shop, write_corpus(tmp_path / "corpus.jsonl", texts))
    assert LONG.strip() in watched.embedded[-1]


def test_all_held_out_texts_that_are_long_enough_count(shop: Path, watched: Watched, tmp_path: Path) -> None:
    foretold(shop, write_corpus(tmp_path / "corpus.jsonl", [LONG + str(i) for i in range(400)]))
    assert watched.sizes[0].usable == held_out_of(400) == 20
