"""Worker processes that do, refuse, fail and die; these speak as real ones do and need no models. Real ones, which are
killed in the midst of a build: ``make test-faults``.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from coreinfer import CoreInferError
from pipeline.passages import BLOCK
from pipeline.shards import processes
from pipeline.shards.crew import Slots
from pipeline.shards.plan import Plan
from pipeline.shards.processes import TRIES, Processes
from pipeline.shards.store import Store
from pipeline.shards.tasks import Place

WORKER = """
import json, os, signal, sys
from pathlib import Path
task = json.loads(sys.stdin.readline())["task"]
folder = Path(task["folder"])
for line in sys.stdin:
    shard = int(line)
    tries = len(list(folder.glob(f"{shard}.try*")))
    (folder / f"{shard}.try{tries}").touch()
    what = task["faults"].get(str(shard))
    if what == "commits and dies once" and not tries:
        (folder / f"{shard}.done").touch()
    if what in ("dies", "dies once", "commits and dies once") and (what == "dies" or not tries):
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "hangs":
        signal.pause()
    (folder / f"{shard}.done").touch()
    answers = {"refuses": {"refused": "no"}, "fails": {"fault": "Traceback"}, "is full": {"disk": [28, "full"]}}
    print(json.dumps(answers.get(what, {"done": 7})), flush=True)
"""


@dataclass(frozen=True)
class FakeTask:
    """Shards of one block; ``faults`` of some of them, by their number as text."""

    folder: Path
    faults: dict[str, str]

    place = Place(Path("passages"), Plan(9 * BLOCK, BLOCK), "cpu")
    store = Store(Path("store"), "key")

    def load(self) -> Any: ...

    def begin(self, model: Any, slot: str) -> Any: ...

    def plain(self) -> dict[str, Any]:
        return {"folder": str(self.folder), "faults": self.faults}

    def is_done(self, shard: int, slot: str) -> bool:
        return (self.folder / f"{shard}.done").exists()


Work = Callable[..., list[int]]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Work:
    """Do nine shards by two processes with faults; returns how often each was tried."""

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", WORKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    monkeypatch.setattr(processes, "_start", start)

    def run(tick: Callable[[int], Any] = lambda n: None, **faults: str) -> list[int]:
        task = FakeTask(tmp_path, {name.removeprefix("shard"): fault for name, fault in faults.items()})
        Processes(2).work(task, range(9), Slots("0of1", ()), tick)
        return [len(list(tmp_path.glob(f"{shard}.try*"))) for shard in range(9)]

    return run


def test_each_shard_is_done_once(work: Work) -> None:
    ticks = list[int]()
    assert work(ticks.append) == [1] * 9
    assert ticks == [7] * 9


def test_a_dead_worker_is_replaced(work: Work) -> None:
    """Its shard is done again, unless it was committed: then it would count twice."""
    tries = work(shard0="dies once", shard4="dies once", shard5="commits and dies once")
    assert tries == [2, 1, 1, 1, 2, 1, 1, 1, 1]


def test_a_shard_at_which_workers_die_is_named(work: Work) -> None:
    said = rf"^{TRIES} worker processes died at shard 3 \(passages 1536 to 2047; signal SIGKILL\): give fewer --workers"
    with pytest.raises(CoreInferError, match=said):
        work(shard3="dies")


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [("refuses", CoreInferError, "^no$"), ("fails", RuntimeError, "Traceback"), ("is full", OSError, "full")],
)
def test_what_a_worker_says_is_wrong_comes_out(work: Work, fault: str, kind: type[Exception], words: str) -> None:
    """At once, also while the other one hangs."""
    begun = time.perf_counter()
    with pytest.raises(kind, match=words):
        work(shard0="hangs", shard2=fault)
    assert time.perf_counter() - begun < 10


def test_slots_that_do_not_count_are_not_gone_on_with() -> None:
    assert [Slots("1of4", {"1of4-0", "1of4-0-1"}).name(worker) for worker in (0, 1)] == ["1of4-0-2", "1of4-1"]
