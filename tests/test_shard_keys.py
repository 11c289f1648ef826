"""What decides the last bits of embeddings, sums and measurements is among the facts that they are kept under."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from families import one_thread as one_thread
from test_record import recorder

from coreinfer import CoreInferError, statistic, summing
from coreinfer.settings import StatisticSettings
from pipeline import stages
from pipeline.data import Candidates, Statistics
from pipeline.passages import BLOCK, Passage, write_passages
from pipeline.record import Recorder
from pipeline.shards import parts
from pipeline.shards.plan import Plan
from pipeline.shards.store import Store, key_of, open_store
from pipeline.shards.tasks import EmbedTask, Place, RecordTask


def store_of(tmp_path: Path, **facts: str) -> Store:
    return open_store(tmp_path / "store", facts, print, shared=False)


def test_packed_and_padded_embeddings_do_not_meet(tmp_path: Path) -> None:
    task = EmbedTask(Place(Path("none"), Plan(9, BLOCK), "cpu"), store_of(tmp_path, encoder="packed"), "any")
    embedder: Any = SimpleNamespace(encoder="packed")
    task.begin(embedder, "slot")
    embedder.encoder = "padded"
    with pytest.raises(CoreInferError, match="has encoder 'padded', the build was begun with 'packed': use machines"):
        task.begin(embedder, "slot")


@pytest.fixture
def task(tmp_path: Path) -> RecordTask:
    """Of two passages in one cluster."""
    passages, options = tmp_path / "p.parquet", Candidates([np.eye(1, dtype=np.float32)], np.zeros((1, 2), np.int32))
    write_passages((Passage(i, f"w{i + 4} w{i + 5}", "here") for i in range(2)), passages)
    store = store_of(tmp_path, loops=recorder("Llama").reduced_by)
    parts.write_clusters(store.at("clusters"), store.key, options)
    return RecordTask(
        Place(passages, Plan(2, BLOCK), "cpu"), store, store.at("clusters"), "any", "float32", StatisticSettings(), 40
    )


def test_loops_and_what_stands_in_for_them_do_not_meet(task: RecordTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither when a worker begins nor where it changes while one works: nothing of that is kept."""
    runs = recorder("Llama")
    do = task.begin(runs, "slot")
    do(0, lambda n: None, None)
    assert task.is_done(0, "slot")
    task.store.at("sums-slot").unlink()
    do = task.begin(runs, "slot")
    monkeypatch.setattr(Recorder, "reduced_by", "torch")
    with pytest.raises(CoreInferError, match="has loops 'torch', the build was begun with "):
        do(0, lambda n: None, None)
    assert not task.is_done(0, "slot")
    with pytest.raises(CoreInferError, match="has loops 'torch'"):
        task.begin(runs, "slot")


def test_what_loops_are_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    kind = statistic.reduced_by(torch.device("cpu"), torch.float32, 9, StatisticSettings())
    assert kind.startswith(f"numba {numba.__version__} ")
    monkeypatch.setattr(numba.config, "CPU_NAME", "generic")
    assert summing.made_with() == f"numba {numba.__version__} generic"
    monkeypatch.setattr(summing, "_loops", lambda: None)
    assert summing.made_with() == "none"


def test_that_there_are_no_loops_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr("coreinfer.loops", raising=False)
    monkeypatch.setitem(sys.modules, "coreinfer.loops", None)
    summing._loops.cache_clear()
    try:
        assert [summing._loops() for _ in range(2)] == [None, None]
    finally:
        summing._loops.cache_clear()
    assert ["loops cannot compile" in record.message for record in caplog.records] == [True]


def test_a_full_disk_of_numba_is_named(task: RecordTask, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not the store's."""

    def full(*given: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(summing, "by_loops", full)
    with pytest.raises(CoreInferError, match=r"Numba cannot keep what it compiled .*another folder in NUMBA_CACHE_DIR"):
        task.begin(recorder("Llama"), "slot")


def test_measurements_are_of_their_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums and sizes may be the same where centroids and vectors are others."""
    monkeypatch.setattr(stages, "remembering", lambda corpus, work: lambda facts: key_of(facts))
    made: Any = stages.Stages.__new__(stages.Stages)
    made.corpus, made.work = SimpleNamespace(parts=SimpleNamespace(held=np.arange(3))), None
    found = set[str]()
    for encoder in ("packed", "padded", "packed"):
        made.facts = {"embedder": "one", "encoder": encoder}
        found.add(made.remember(Store(Path("store"), "key"), Statistics.zeros(2, 1, 1)))
    assert len(found) == 2
