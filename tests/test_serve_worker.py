"""The engine's thread over slots without a model: who waits for whom, and what one fault takes along."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seating import FakeTable, a_set

from coreinfer.decode.continuing import Sampling
from coreinfer.serve.faults import Refused
from coreinfer.serve.jobs import Asked, Ended, Failed, Job, Piece, Wish
from coreinfer.serve.joining import GROUPS, Waits
from coreinfer.serve.limits import Limits
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.preparing import Prompted
from coreinfer.serve.running import STEPS
from coreinfer.serve.texts import Text
from coreinfer.serve.words import Words
from coreinfer.serve.worker import Worker

EVER = float("inf")


class FakePreparing:
    """Prefills at once; of texts of one token none is left."""

    def __init__(self, table: FakeTable, name: str = "first") -> None:
        self.table, self.version, self.name = table, SimpleNamespace(engine=None), name
        self.context, self.ends, self.metrics = 512, frozenset[int](), Metrics()
        self.done = list[tuple[str, int, int]]()

    def texts(self, one: Prompted) -> list[Text]:
        job = one.job
        self.done.append((self.name, one.number, self.table.clock))
        neurons = a_set(one.number % 3, False)
        words, most, begun = Words(lambda some: "a" * len(some)), job.wish.max_tokens, SimpleNamespace(cache=None)
        begun.ids = SimpleNamespace(shape=(1, 1))
        text = Text(job, one.number, Waits(neurons.mask().reshape(-1)), neurons, words, most, 512, 0, 0)
        text.prefill = begun  # type: ignore[assignment]
        if why := text.take(0, None, frozenset()):
            text.end(why)
        return [] if why else [text]


class Engine:
    """A worker whose turns are the test's."""

    def __init__(self, batch: int = 2, queue: int = 100) -> None:
        decoder: Any = SimpleNamespace(state=SimpleNamespace(slots=batch), on_gpu=True)  # nothing is matched apart
        self.worker = Worker(None, decoder, frozenset(), Limits(batch=batch, queue=queue), Metrics())  # type: ignore[arg-type]
        self.table = FakeTable(batch)
        self.worker.running.table = self.table  # type: ignore[assignment]
        self.preparing = self.worker.preparing = FakePreparing(self.table)  # type: ignore[assignment]

    def job(self, prompts: int = 1, tokens: int = 1, deadline: float = EVER) -> tuple[Job, list[Any]]:
        told = list[Any]()
        asked = [Asked(None, "")] * prompts  # type: ignore[arg-type]
        job = Job(asked, 1, Wish("auto", None, False, Sampling(), 0, tokens), told.append, deadline)
        self.worker.submit(job)
        return job, told

    def until_idle(self) -> None:
        while not (self.worker.idle and self.worker._inbox.empty()):  # a turn without either waits for more
            self.worker.turn()
        assert self.worker._waiting == 0
        assert len(self.table.free) == self.worker.limits.batch


def test_all_prompts_of_a_request_are_of_one_artifact() -> None:
    engine = Engine()
    engine.job(prompts=6, tokens=20)
    engine.worker.turn()
    assert 0 < len(engine.preparing.done) < 6
    engine.worker.preparing = other = FakePreparing(engine.table, "second")  # type: ignore[assignment]
    engine.job(prompts=2)
    engine.until_idle()
    assert [number for _, number, _ in engine.preparing.done] == list(range(6))
    assert {name for name, _, _ in other.done} == {"second"}


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 1, 1, 30])), max_size=30), st.integers(1, 4))
def test_who_decodes_has_a_turn_after_a_prefill_or_few(requests: Any, batch: int) -> None:
    """Whatever waits, and though texts of one token never take a slot: after one where most slots are taken, else after
    as many as are free.
    """
    engine, stream = Engine(batch, queue=200), 0
    _, told = engine.job(tokens=400)
    engine.worker.turn()
    for prompts, tokens in requests:
        engine.job(prompts, tokens)
    engine.worker.ask([lambda: None] * 50, EVER)
    while not any(isinstance(event, Ended) for event in told):
        before, seen = len(engine.preparing.done), engine.table.clock
        taken = len(engine.worker.running.texts)
        engine.worker.turn()
        assert len(engine.preparing.done) <= before + (max(1, batch - taken) if 2 * taken <= batch else 1)
        assert engine.table.clock > seen
        stream += 1
    assert engine.table.longest <= (GROUPS - 1) * STEPS + 1
    engine.until_idle()


def test_asks_are_done_a_part_a_turn_and_count_as_texts() -> None:
    engine, seen = Engine(batch=1, queue=2), list[int]()
    first = engine.worker.ask([lambda: seen.append(1), lambda: seen.append(2)], EVER)
    left = engine.worker.ask([lambda: seen.append(9)], EVER)
    late = engine.worker.ask([lambda: seen.append(9)], 0.0)
    with pytest.raises(Refused, match="3 texts wait already, of 2 that may"):
        engine.worker.ask([lambda: None], EVER)
    left.cancel()
    engine.worker.turn()
    assert seen == [1]
    broken = engine.worker.ask([lambda: 1 / 0], EVER)
    engine.until_idle()
    assert (seen, len(first.result())) == ([1, 2], 2)
    assert isinstance(late.exception(), Refused)
    assert isinstance(broken.exception(), ZeroDivisionError)


def test_who_left_or_is_late_makes_room() -> None:
    engine = Engine(batch=1, queue=2)
    engine.job(tokens=400)
    engine.worker.turn()
    jobs = [engine.job(tokens=5), engine.job(tokens=5, deadline=0.0)]
    with pytest.raises(Refused, match="2 texts wait already"):
        engine.job()
    jobs[0][0].leave()
    engine.worker.turn()
    (event,) = jobs[1][1]
    assert "not begun within" in str(event.error)
    engine.job(prompts=2)
    with pytest.raises(Refused, match="the request is for 4 texts, 3 fit here"):
        engine.job(prompts=4)
    engine.until_idle()


def test_a_texts_own_fault_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(batch=2)
    told = [engine.job(tokens=30)[1] for _ in range(2)]
    engine.worker.turn()
    broken = engine.worker.running.texts[0]
    monkeypatch.setattr(broken.words, "take", lambda token: 1 / 0)
    engine.until_idle()
    assert sorted(type(events[-1]).__name__ for events in told) == ["Ended", "Failed"]


def test_a_seat_that_fails_is_told_and_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(batch=1)
    _, told = engine.job(tokens=5)
    with monkeypatch.context() as patch:
        patch.setattr(engine.table, "take", lambda ids, cache: 1 / 0)
        engine.until_idle()
    assert isinstance(told[-1], Failed)
    _, told = engine.job(tokens=5)
    engine.until_idle()
    assert isinstance(told[-1], Ended)
    assert sum(event.tokens for event in told if isinstance(event, Piece)) == 5


def test_all_who_wait_are_told_that_the_thread_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, ended = Engine(batch=1), list[bool]()
    told = [engine.job(tokens=400)[1] for _ in range(3)]
    engine.worker.turn()
    made = engine.worker.ask([lambda: None], EVER)
    monkeypatch.setattr(engine.worker.running, "release", lambda: 1 / 0)
    engine.worker.failed = lambda: ended.append(True)
    engine.worker.run()
    assert all(isinstance(events[-1], Failed) for events in told)
    assert isinstance(made.exception(), ZeroDivisionError)
    assert ended == [True]
    with pytest.raises(Refused, match="the engine has stopped"):
        engine.job()


def test_the_wait_for_a_slot_is_in_the_queues_time() -> None:
    engine = Engine(batch=1)
    told = [engine.job(tokens=50)[1] for _ in range(2)]
    while not engine.worker._ready:
        engine.worker.turn()
    engine.worker._ready[0].began -= 10
    engine.until_idle()
    assert told[1][-1].queue_s >= 10
    assert 0 < told[1][-1].decode_s < 10
