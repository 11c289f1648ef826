"""Tokens a second and shares of the machine's products: the work of a tiny model, counted by hand."""

import json
from pathlib import Path

import pytest
import torch
from families import FAMILIES, HIDDEN, LAYERS, WIDTH
from families import one_thread as one_thread
from small_models import save_bert
from test_record import recorder

from coreinfer.bench import limits
from coreinfer.bench.shapes import SHAPES
from coreinfer.embedder import Embedder
from pipeline import record_cost
from pipeline.speed import embedding, recording, sentence, speed
from pipeline.throughput import rate


def test_the_work_of_recording_is_weights_and_attention() -> None:
    """A Llama of 4 heads of 8, keys and values of 2; the last down projection is left out."""
    texts = ["w4 w5 w6", "w4"]  # 4 tokens and 2, with the beginning-of-text
    work = recording(recorder("Llama"), texts)
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * (HIDDEN // 2) + 3 * HIDDEN * WIDTH
    weights = LAYERS * layer - HIDDEN * WIDTH
    pairs = (4**2 + 2**2) / 2 / 2  # the mean of squares, of which causal attention needs half
    assert work.tokens == 3
    assert work.flops == pytest.approx(2 * weights * 3 + 4 * LAYERS * HIDDEN * pairs)
    assert work.shape == (HIDDEN, WIDTH)


def test_a_speed_adds_up() -> None:
    work = recording(recorder("Llama"), ["w4 w5 w6"])
    made = speed(work, 10, 2.0)
    assert (made.tokens, made.tokens_per_second) == (40, 20.0)
    assert made.flops == pytest.approx(work.flops * 5)
    assert made.share == pytest.approx(made.flops / made.limit)
    assert made.limit > 0
    assert sentence({**made.row(), "share": 0.25, "limit": 2e12}) == (
        "20 tokens/s, 25% of what this machine multiplies (2 TFLOP/s in float32)"
    )


def test_products_are_counted_twice_a_weight_and_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "seconds", lambda work, device: 1.0)
    assert limits.multiplications("cpu", torch.float32, 4, 8, 16) == 2 * 4 * 8 * 16


def test_the_work_of_embedding_is_weights_and_attention(tmp_path: Path) -> None:
    """A BERT of one layer of 2 heads of 16: its pooler is not read, and every token looks at every other."""
    model = Embedder(str(save_bert(tmp_path)), dtype="float32")
    work = embedding(model, ["water stone", "river"])  # 4 tokens and 3, with two special ones each
    assert work is not None
    weights, pairs = 4 * 32 * 32 + 2 * 32 * 32, (4**2 + 3**2) / 2
    assert work.tokens == 3.5
    assert work.flops == pytest.approx(2 * weights * 3.5 + 4 * 32 * pairs)
    assert (work.shape, work.dtype) == ((32, 32), torch.float32)


def test_a_rate_begins_when_all_workers_have_done_a_shard() -> None:
    """The second worker is late: what the first did until then does not count."""
    done = [(1.0, 0, 9), (2.0, 0, 9), (3.0, 0, 9), (3.5, 1, 9), (4.0, 0, 9), (4.5, 1, 9), (5.5, 0, 9)]
    assert rate(done) == 27 / 2
    assert rate([(1.0, 0, 9), (2.0, 0, 7), (3.0, 0, 7)]) == 7


def test_what_recording_adds_is_said_for_each_statistic(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", FAMILIES["Llama"])
    record_cost.main(["--shape", "tiny", "--texts", "2", "--tokens", "16", "--rounds", "2"])
    made = json.loads(capsys.readouterr().out)
    assert (made["shape"], made["texts"], made["tokens"], made["rounds"]) == ("tiny", 2, 16, 2)
    for cost in made["over_bare_forward"].values():
        assert cost["theirs"] == "its bare forward"
        assert cost["ratio"] > 0.1
    assert set(made["over_bare_forward"]) == {"energy", "griffin", "count"}
