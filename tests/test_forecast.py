"""A forecast is of the whole dataset, wherever its long texts are."""

from pathlib import Path
from typing import Any

import pytest
from conftest import write_corpus
from small_models import save_bert, save_llama

from coreinfer.embedder import Embedder
from coreinfer.settings import StatisticSettings
from coreinfer.threads import running_on
from pipeline import forecast
from pipeline.calibration.run import usable
from pipeline.holdout import held_out_of
from pipeline.needs import Rates, Sizes, needs
from pipeline.passages import WINDOW
from pipeline.record import BATCH, Recorder
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

SHORT, LONG = "The tide is out on day {}. ", "The boats lie on the sand until the evening. " * 16


class Watched:
    """What a forecast worked on: sizes, rates, and texts that it embedded, a call each; how many texts it counted the
    tokens of, and how many it cut.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.sizes, self.rates, self.embedded = list[Sizes](), list[Rates](), list[list[str]]()
        self.tokenized, self.cut = list[int](), list[int]()
        embed, lengths = Embedder.embed, Recorder.lengths

        def needed(size: Sizes, rates: Rates, *rest: Any) -> Any:
            self.sizes.append(size)
            self.rates.append(rates)
            return needs(size, rates, *rest)

        def measured(recorder: Recorder, texts: list[str]) -> list[int]:
            self.tokenized.append(len(texts))
            return lengths(recorder, texts)

        def shortened(tokenizer: Any, texts: list[str]) -> Any:
            self.cut.append(len(texts))
            return usable(tokenizer, texts)

        def embedded(embedder: Embedder, texts: list[str]) -> Any:
            self.embedded.append(texts)
            return embed(embedder, texts)

        patch.setattr(forecast, "needs", needed)
        patch.setattr(forecast, "usable", shortened)
        patch.setattr(Recorder, "lengths", measured)
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
    batches = [{len(text) > len(SHORT) + 9 for text in timed[at : at + BATCH]} for at in range(0, len(timed), BATCH)]
    assert batches == [{False}] * 7 + [{True}]  # a tenth is long, and no batch has both
    assert sum(len(text) > len(LONG) for text in longest) >= 8 * BATCH  # of as many batches, and the longest


def test_the_longest_text_is_run_wherever_it_is(shop: Path, watched: Watched, tmp_path: Path) -> None:
    """Memory at the most is memory with it: one in a thousand is in no small sample."""
    texts = [SHORT.format(i).strip() for i in range(WINDOW + 1000)]
    texts[WINDOW + 501] = LONG
    foretold(shop, write_corpus(tmp_path / "corpus.jsonl", texts))
    assert LONG.strip() in watched.embedded[-1]


def test_all_held_out_texts_that_are_long_enough_count(shop: Path, watched: Watched, tmp_path: Path) -> None:
    foretold(shop, write_corpus(tmp_path / "corpus.jsonl", [LONG + str(i) for i in range(400)]))
    assert watched.sizes[0].usable == held_out_of(400) == 20


def test_a_sample_is_tokenized_once(shop: Path, watched: Watched, tmp_path: Path) -> None:
    """After all texts were, by the 64; but for those that are run as held-out ones."""
    foretold(shop, write_corpus(tmp_path / "corpus.jsonl", [LONG + str(i) for i in range(400)]))
    assert [count for count in watched.tokenized if count > 64] == [2 * 400]  # the longest, and some
    (cut,) = watched.cut
    assert cut <= 96 < 400


def test_workers_have_the_cores_that_one_process_leaves_idle(
    shop: Path, watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus = write_corpus(tmp_path / "corpus.jsonl", [LONG + str(i) for i in range(100)])
    with running_on(1):
        for count in (1, 64):
            monkeypatch.setattr(forecast, "cores", lambda count=count: count)
            foretold(shop, corpus)
    none, much = watched.rates
    assert none.embed_room == none.record_room == pytest.approx(1, rel=0.5)
    assert min(much.embed_room, much.record_room) > 32
