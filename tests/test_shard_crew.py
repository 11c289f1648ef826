"""Worker processes that do, refuse, fail and die; these speak as real ones do and need no models. Real ones, which are
killed in the midst of a build: ``make test-faults``.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from fake_shards import FakeTask

from coreinfer import CoreInferError
from pipeline.shards import hands, patience, processes
from pipeline.shards.crew import TRIES, Event, Left, Slots
from pipeline.shards.hands import work_all
from pipeline.shards.labour import Answer
from pipeline.shards.processes import Processes

WORKER = """
import json, os, signal, sys
from pathlib import Path
task = json.loads(sys.stdin.readline())["task"]
folder = Path(task["folder"])
for line in sys.stdin:
    asked = json.loads(line)
    shard = asked["shard"]
    tries = len(list(folder.glob(f"{shard}.try*")))
    (folder / f"{shard}.try{tries}").touch()
    what = task["faults"].get(str(shard))
    if what == "commits and dies once" and not tries:
        (folder / f"{shard}.done").touch()
    dies = {"dies": True, "dies once": not tries, "commits and dies once": not tries, "is large": not asked["fewest"]}
    if dies.get(what):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hangs":
        signal.pause()
    if what == "stands still once" and not tries:
        os.kill(os.getpid(), signal.SIGSTOP)
    (folder / f"{shard}.done").touch()
    fails = {"fault": "ValueError: no number"}
    small = {"done": 7, "together": 1}
    answers = {"is large": small, "refuses": {"refused": "no"}, "fails": fails, "is full": {"disk": [28, "full"]}}
    print(json.dumps(answers.get(what, {"done": 7})), flush=True)
"""


@dataclass
class Worked:
    """What was heard, and how often each shard was tried."""

    tries: list[int]
    events: list[Event]
    ticks: list[int]

    def hear(self, event: Event) -> None:
        """Who is said to be late is killed, as the sentence says."""
        self.events.append(event)
        if event.what == "slow":
            found = re.match(
                r"worker \d \(process (\d+)\) has been at shard \d for \d+ s, others take \d+ s: kill it", event.why
            )
            assert found
            os.kill(int(found[1]), signal.SIGKILL)

    def about(self, shard: int) -> list[str]:
        return [event.what for event in self.events if event.shard == shard]


Work = Callable[..., Worked]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Do nine shards by two processes with faults."""

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    monkeypatch.setattr(processes, "_start", start)

    def run(**faults: str) -> Worked:
        task = FakeTask(tmp_path, {name.removeprefix("shard"): fault for name, fault in faults.items()})
        made = Worked([], [], [])
        Processes(2).work(task, range(9), Slots("0of1", ()), made.ticks.append, made.hear)
        made.tries += [len(list(tmp_path.glob(f"{shard}.try*"))) for shard in range(9)]
        return made

    return run


def test_each_shard_is_done_once(work: Work) -> None:
    made = work()
    assert made.tries == [1] * 9
    assert made.ticks == [7] * 9
    assert sorted(event.what for event in made.events) == ["done"] * 9 + ["started"] * 2


def test_a_dead_worker_is_replaced(work: Work) -> None:
    """Its shard is done again, unless it was committed: then it would count twice."""
    made = work(shard0="dies once", shard4="dies once", shard5="commits and dies once")
    assert made.tries == [2, 1, 1, 1, 2, 1, 1, 1, 1]
    assert [made.about(shard) for shard in (0, 3, 5)] == [["died", "done"], ["done"], ["died", "done"]]
    assert sum(event.what == "started" for event in made.events) == 2 + 3


def test_a_worker_that_stands_still_is_named(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it is killed, its shard is done by another. How far all is was said meanwhile."""
    monkeypatch.setattr(patience, "LEAST", 1.5)
    monkeypatch.setattr(hands, "EVERY", 0.1)
    made = work(shard5="stands still once")
    assert made.about(5) == ["slow", "died", "done"]
    assert made.tries == [1, 1, 1, 1, 1, 2, 1, 1, 1]
    assert 0 in made.ticks


def test_a_shard_that_cannot_be_done_is_found_bad(work: Work) -> None:
    """The others are done all the same."""
    made = work(shard3="dies", shard6="fails")
    assert made.about(3) == ["died"] * TRIES + ["bad"]
    assert made.about(6) == ["failed"] * TRIES + ["bad"]
    assert sum(event.what == "done" for event in made.events) == 7
    why = {event.shard: event.why for event in made.events if event.what == "bad"}
    deaths = "3 workers died at it, the last with one text at a time (signal SIGKILL)"
    assert why[3] == f"{deaths}: give fewer --workers if memory ran out"
    assert why[6] == "ValueError: no number"


def test_a_shard_too_large_for_the_memory_runs_text_by_text(work: Work) -> None:
    """What the system kills for want of memory cannot say so: a second death at one shard says it."""
    made = work(shard2="is large")
    assert made.about(2) == ["died", "died", "done"]
    assert {event.shard: event.together for event in made.events if event.what == "done"} == {
        shard: 1 if shard == 2 else None for shard in range(9)
    }


@pytest.mark.parametrize(
    ("fault", "kind", "words"), [("refuses", CoreInferError, "^no$"), ("is full", OSError, "full")]
)
def test_what_a_worker_says_is_wrong_comes_out(work: Work, fault: str, kind: type[Exception], words: str) -> None:
    """At once, also while the other one hangs."""
    begun = time.perf_counter()
    with pytest.raises(kind, match=words):
        work(shard0="hangs", shard2=fault)
    assert time.perf_counter() - begun < 10


class Leaving:
    """A hand that finds no room at a shard, or from the beginning."""

    def __init__(self, number: int, at: int | None) -> None:
        self.number, self.slot, self.at, self.stopped = number, str(number), at, False

    @property
    def name(self) -> str:
        return f"worker {self.number}"

    def ask(self, shard: int, fewest: bool = False) -> Answer | None:
        if self.at is not None and shard >= self.at:
            raise Left(f"no room for worker {self.number}")
        return {"done": 1}

    def bury(self) -> str:
        return ""

    def stop(self) -> None:
        self.stopped = True


def test_who_finds_no_room_leaves_the_others_to_it(tmp_path: Path) -> None:
    """Also at the very last shard; only when nobody is left it is an error."""
    task, ticks, events = FakeTask(tmp_path, {}), list[int](), list[Event]()
    work_all([Leaving(0, None), Leaving(1, 8)], task, range(9), ticks.append, events.append)
    assert sum(ticks) == 9
    work_all([Leaving(0, None), Leaving(1, 0), Leaving(2, 0)], task, range(9), ticks.append, events.append)
    assert sum(ticks) == 18
    with pytest.raises(CoreInferError, match=r"no room for worker [01]"):
        work_all([Leaving(0, 4), Leaving(1, 4)], task, range(9), ticks.append, events.append)


def test_slots_that_do_not_count_are_not_gone_on_with() -> None:
    assert [Slots("1of4", {"1of4-0", "1of4-0-1"}).name(worker) for worker in (0, 1)] == ["1of4-0-2", "1of4-1"]
