"""Prompts are matched beside what decodes, in their order, by the engine that will run them or not at all."""

import time
from itertools import pairwise
from queue import SimpleQueue
from threading import Event, current_thread
from types import SimpleNamespace
from typing import Any

import pytest
from seating import FakeTable
from test_serve_worker import EVER, FakePreparing

from coreinfer import Engine
from coreinfer.decode.continuing import Sampling
from coreinfer.serve.jobs import Asked, Ended, Failed, Job, Wish
from coreinfer.serve.lifetime import Serving, made_of
from coreinfer.serve.limits import Limits
from coreinfer.serve.matching import Matching, is_matched, match_of
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.running import STEPS
from coreinfer.serve.worker import Worker


class FakeEngine:
    """Its matches say which words they are of, once it may go on."""

    def __init__(self) -> None:
        self.may, self.done = Event(), list[str]()
        self.may.set()

    def match(self, words: list[str]) -> list[Any]:
        self.may.wait(60)
        if words == ["broken"]:
            raise ValueError("no vector")
        self.done += words
        return [f"of {words[0]}"]


def job_of(*prompts: str, tokens: int = 1) -> Job:
    asked = [Asked(None, words) for words in prompts]  # type: ignore[arg-type]
    return Job(asked, 1, Wish("auto", None, False, Sampling(), 0, tokens), lambda event: None, EVER)


def test_a_match_is_its_engines_alone() -> None:
    matching, engine, other = Matching(apart=True), FakeEngine(), FakeEngine()
    job = job_of("river", "rice")
    matching.begin(job, lambda: engine)  # type: ignore[return-value, arg-type]
    assert [match_of(job, number, engine) for number in range(2)] == ["of river", "of rice"]  # type: ignore[arg-type, comparison-overlap]
    assert match_of(job, 1, other) is None, "another artifact's"  # type: ignore[arg-type]
    matching.end()


def test_who_has_left_is_not_matched_and_what_fails_says_so() -> None:
    matching, engine = Matching(apart=True), FakeEngine()
    engine.may.clear()
    jobs = [job_of(words) for words in ("river", "left", "broken", "rice")]
    for job in jobs:
        matching.begin(job, lambda: engine)  # type: ignore[return-value, arg-type]
    jobs[1].leave()
    assert not any(is_matched(job, 0) for job in jobs)
    engine.may.set()
    assert match_of(jobs[1], 0, engine) is None  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no vector"):
        match_of(jobs[2], 0, engine)  # type: ignore[arg-type]
    assert match_of(jobs[3], 0, engine) == "of rice"  # type: ignore[arg-type, comparison-overlap]
    assert engine.done == ["river", "rice"]
    matching.end()


def test_the_engines_thread_finds_it_where_nothing_may_run_beside() -> None:
    matching, engine, job = Matching(apart=False), FakeEngine(), job_of("river")
    matching.begin(job, lambda: engine)  # type: ignore[return-value, arg-type]
    assert is_matched(job, 0)
    assert match_of(job, 0, engine) is None  # type: ignore[arg-type]
    assert engine.done == []
    matching.end()


def test_texts_decode_until_the_next_prompt_is_matched() -> None:
    engine, table = FakeEngine(), FakeTable(3)
    decoder: Any = SimpleNamespace(state=SimpleNamespace(slots=3), on_gpu=False)
    worker = Worker(None, decoder, frozenset(), Limits(batch=3, queue=10), Metrics())  # type: ignore[arg-type]
    worker.running.table = table  # type: ignore[assignment]
    worker.preparing = made = FakePreparing(table)  # type: ignore[assignment]
    made.version = SimpleNamespace(engine=engine)
    worker.submit(job_of("river", "law", tokens=100))
    worker.turn()
    engine.may.clear()
    worker.submit(late := job_of("rice", tokens=100))
    before = table.clock
    worker.turn()
    worker.turn()
    assert table.clock > before + STEPS, "whole turns, though it has come"
    assert len(made.done) == 2
    engine.may.set()
    late.matches[0].result(60)
    worker.turn()
    assert len(made.done) == 3
    worker.matching.end()


def test_a_prompt_that_was_matched_before_a_turn_does_not_end_it() -> None:
    """Five of eight slots are taken, and prompts of one token come one after another: a prefill, then a whole turn."""
    table = FakeTable(8)
    decoder: Any = SimpleNamespace(state=SimpleNamespace(slots=8), on_gpu=True)
    worker = Worker(None, decoder, frozenset(), Limits(batch=8, queue=100), Metrics())  # type: ignore[arg-type]
    worker.running.table = table  # type: ignore[assignment]
    worker.preparing = FakePreparing(table)  # type: ignore[assignment]
    worker.submit(job_of(*["river"] * 5, tokens=400))
    worker.turn()
    worker.submit(job_of(*["rice"] * 6))
    worker.turn()
    clocks = [table.clock]
    for _ in range(4):
        worker.turn()
        clocks.append(table.clock)
    assert [b - a for a, b in pairwise(clocks)] == [STEPS] * 4


def test_a_server_matches_each_prompt_once_and_beside(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _ = made_of(engine, Serving(limits=Limits(context=128)))
    seen, told, match = list[tuple[str, list[Any]]](), SimpleQueue[Any](), Engine.match

    def watched(self: Engine, prompts: Any) -> Any:
        seen.append((current_thread().name, list(prompts)))
        return match(self, prompts)

    monkeypatch.setattr(Engine, "match", watched)
    worker = made(SimpleNamespace(flush=lambda: None), Metrics(), lambda: None)  # type: ignore[arg-type]
    worker.start()
    words = ["The river runs", "She cut the onions", "The court ruled"]
    asked = [Asked(engine.encode(one), one) for one in words]
    wish = Wish("auto", None, False, Sampling(), 0, 4)
    worker.submit(Job(asked, 1, wish, told.put, time.monotonic() + 60))
    ended = 0
    while ended < 3:
        event = told.get(timeout=60)
        assert not isinstance(event, Failed), event
        ended += isinstance(event, Ended)
    worker.end()
    worker.join(60)
    assert [prompts for _, prompts in seen] == [[one] for one in words]
    assert all(name.startswith("coreinfer-match") for name, _ in seen)
