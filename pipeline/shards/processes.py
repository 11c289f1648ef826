"""Several processes on this machine, each with its own model, its own running sums and its part of the threads.

They speak JSON, a line each way (``worker.py``): no pickles, and a script that builds needs no ``__main__`` guard. A
process that is gone closes its pipe, so that is noticed at once; another takes its place, goes on from what it had
committed, and does its shard again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from signal import Signals
from threading import Lock, Thread
from typing import Any

import torch

import pipeline
from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from pipeline.shards.crew import Slots
from pipeline.shards.tasks import Task

TRIES = 3  # processes that may die at one shard


class Processes:
    """``count`` worker processes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def work(self, task: Task, shards: Sequence[int], slots: Slots, tick: Tick) -> None:
        """See ``Crew``. A thread for each process gives it a shard after another."""
        count = min(self.count, len(shards))
        hands = [Hand(task, slots.name(number), max(1, torch.get_num_threads() // count)) for number in range(count)]
        events, waiting = SimpleQueue[int | BaseException](), _OneByOne(shards)
        threads = [Thread(target=_serve, args=(hand, waiting, events), daemon=True) for hand in hands]
        try:
            for thread in threads:
                thread.start()
            for _ in shards:
                if isinstance(event := events.get(), BaseException):
                    raise event
                tick(event)
        finally:
            for hand in hands:
                hand.stop()
            for thread in threads:
                thread.join()
            for hand in hands:
                hand.bury()


class _OneByOne:
    """Shards, each given to one thread."""

    def __init__(self, shards: Sequence[int]) -> None:
        self._shards, self._lock = iter(shards), Lock()

    def __iter__(self) -> Iterator[int]:
        while True:
            with self._lock:
                shard = next(self._shards, None)
            if shard is None:
                return
            yield shard


def _serve(hand: "Hand", waiting: _OneByOne, events: "SimpleQueue[int | BaseException]") -> None:
    """Shard after shard; ``events`` gets the passages of each, or why there will be no more."""
    try:
        for shard in waiting:
            events.put(hand.do(shard))
    except BaseException as error:
        events.put(error)


class Hand:
    """One place of the crew: a process, and after its death another."""

    def __init__(self, task: Task, slot: str, threads: int) -> None:
        self.task, self.slot, self.threads = task, slot, threads
        self._process: subprocess.Popen[str] | None = None
        self._stopped, self._lock = False, Lock()

    def do(self, shard: int) -> int:
        """Have a shard done; returns how many passages that were.

        Raises:
            CoreInferError: what the worker said is wrong, or that it dies at this shard again and again.
            OSError: its disk refused.
        """
        rows = self.task.place.plan.rows(shard)
        for _ in range(TRIES):
            answer = self._ask(shard)
            if answer is not None:
                return _heeded(answer)
            code = self.bury()
            if self._stopped or self.task.is_done(shard, self.slot):
                return len(rows)
        raise CoreInferError(
            f"{TRIES} worker processes died at shard {shard} (passages {rows.start} to {rows.stop - 1}; {_how(code)}): "
            "give fewer --workers if memory ran out, or leave those passages out; what was done is kept"
        )

    def _ask(self, shard: int) -> dict[str, Any] | None:
        """The worker's answer; None if it is dead."""
        try:
            process = self._alive()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{shard}\n")
            process.stdin.flush()
            return dict(json.loads(process.stdout.readline()))
        except (BrokenPipeError, ValueError):  # no line, or half of one
            return None

    def _alive(self) -> "subprocess.Popen[str]":
        with self._lock:
            if self._stopped:
                raise BrokenPipeError
            if self._process is None:
                self._process = _start()
                assert self._process.stdin is not None
                job = {"kind": type(self.task).__name__, "task": self.task.plain(), "slot": self.slot}
                self._process.stdin.write(json.dumps(job | {"threads": self.threads}) + "\n")
            return self._process

    def bury(self) -> int:
        """End what is left of the process, and say how it ended."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return 0
        process.kill()  # whose pipe is closed, whatever else it still does
        code = process.wait()
        _close(process)
        return code

    def stop(self) -> None:
        """No more of it, now."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()


def _start() -> "subprocess.Popen[str]":
    root = str(Path(pipeline.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.shards.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        encoding="utf-8", env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip


def _close(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # what was not sent yet has nobody to go to
            pass


def _heeded(answer: dict[str, Any]) -> int:
    """The passages that were done, or the worker's fault as one of ours."""
    if "refused" in answer:
        raise CoreInferError(str(answer["refused"]))
    if "disk" in answer:
        raise OSError(*answer["disk"])
    if "fault" in answer:
        raise RuntimeError(f"a worker process failed:\n{answer['fault']}")
    return int(answer["done"])


def _how(code: int) -> str:
    """``signal SIGKILL``, ``exit code 1``."""
    return f"signal {Signals(-code).name}" if code < 0 else f"exit code {code}"
