"""Prompts are matched beside what decodes, in their order, by the engine that will run them or not at all."""

from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from seating import FakeTable
from test_serve_worker import EVER, FakePreparing

from coreinfer.decode.continuing import Sampling
from coreinfer.serve.jobs import Asked, Job, Wish
from coreinfer.serve.limits import Limits
from coreinfer.serve.matching import Matching, is_matched, match_of
from coreinfer.serve.metrics import Metrics
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
    matching.begin(job, engine)  # type: ignore[arg-type]
    assert [match_of(job, number, engine) for number in range(2)] == ["of river", "of rice"]  # type: ignore[arg-type, comparison-overlap]
    assert match_of(job, 1, other) is None, "another artifact's"  # type: ignore[arg-type]
    matching.end()


def test_who_has_left_is_not_matched_and_what_fails_says_so() -> None:
    matching, engine = Matching(apart=True), FakeEngine()
    engine.may.clear()
    jobs = [job_of(words) for words in ("river", "left", "broken", "rice")]
    for job in jobs:
        matching.begin(job, engine)  # type: ignore[arg-type]
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
    matching.begin(job, engine)  # type: ignore[arg-type]
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
    assert len(made.done) == 2, "few decode: it is waited for"
    engine.may.clear()
    worker.submit(job_of("rice", tokens=100))
    before = table.clock
    worker.turn()
    worker.turn()
    assert table.clock > before + 8, "whole turns, though it has come"
    assert len(made.done) == 2
    engine.may.set()
    while not worker._matched:
        pass
    worker.turn()
    assert len(made.done) == 3
    worker.matching.end()
