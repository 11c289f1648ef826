"""Shards of a corpus that begin at blocks, recorded apart and added: one pass, bit for bit. Real model, real texts."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import one_pass
import pytest
from conftest import demo_texts

from coreinfer.models import load_model
from coreinfer.settings import StatisticSettings
from pipeline import passages, record
from pipeline.data import Statistics
from pipeline.passages import Passage, write_passages
from pipeline.record import Recorder

BLOCK, CLUSTERS, COUNT = 8, 3, 24
LABELS = np.random.default_rng(0).integers(0, CLUSTERS, (1, COUNT))
LABELS[0, ::7] = -1  # held out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Texts of 75 to 300 tokens (short ones come out alike in any batch): three blocks in two windows."""
    path = tmp_path_factory.mktemp("shards") / "passages.parquet"
    texts = [text[: 300 + 337 * i % 911] for i, text in enumerate(demo_texts(COUNT, 1200))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "BLOCK", BLOCK)
        patch.setattr(passages, "WINDOW", 2 * BLOCK)
        write_passages((Passage(i, text, str(i)) for i, text in enumerate(texts)), path)
        yield path


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def recorder(request: pytest.FixtureRequest) -> Recorder:
    model, tokenizer = load_model("demo", request.param)
    return Recorder(model, tokenizer, StatisticSettings(), 512)


@pytest.fixture(scope="module")
def whole(corpus: Path, recorder: Recorder) -> Statistics:
    return one_pass.record(corpus, LABELS, CLUSTERS, recorder)


def test_windows_hold_whole_blocks() -> None:
    assert passages.WINDOW % passages.BLOCK == 0


def test_shards_equal_one_pass(corpus: Path, recorder: Recorder, whole: Statistics) -> None:
    edges = (8, 16)
    shard = np.searchsorted(np.array(edges), np.arange(COUNT), side="right")
    merged = Statistics.zeros(CLUSTERS, *recorder.shape)
    for number in reversed(range(len(edges) + 1)):
        part = one_pass.record(corpus, np.where(shard == number, LABELS, -1), CLUSTERS, recorder)
        for mine, theirs in zip(vars(merged).values(), vars(part).values(), strict=True):
            mine += theirs
    assert merged.sums.tobytes() == whole.sums.tobytes()
    assert merged.passages.tolist() == whole.passages.tolist()
    assert merged.tokens.tolist() == whole.tokens.tolist()
    assert whole.passages.sum() == (LABELS >= 0).sum()
