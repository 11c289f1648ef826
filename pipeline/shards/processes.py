"""Several processes on this machine, each with its own model and running sums, or its own GPU. On a CPU each has as
many threads as one process would have, since last bits depend on that.

They speak JSON, a line each way (``worker.py``): no pickles, and a script that builds needs no ``__main__`` guard. A
process that is gone closes its pipe, so that is noticed at once; another takes its place, goes on from what it had
committed, and does its shard again.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import Signals
from threading import Lock

import torch

import pipeline
from coreinfer.progress import Tick
from pipeline.shards.crew import Hear, Slots
from pipeline.shards.gpus import gpus_here
from pipeline.shards.hands import work_all
from pipeline.shards.job import Job
from pipeline.shards.labour import Answer
from pipeline.shards.tasks import Task


class Processes:
    """``count`` worker processes."""

    def __init__(self, count: int) -> None:
        self.count = count

    def work(self, task: Task, shards: Sequence[int], slots: Slots, tick: Tick, hear: Hear) -> None:
        """See ``Crew``."""
        count = min(self.count, len(shards))
        threads = torch.get_num_threads()
        jobs = [Job(_placed(task, number), slots.name(number), threads) for number in range(count)]
        work_all([Process(number, job) for number, job in enumerate(jobs)], task, shards, tick, hear)


def _placed(task: Task, number: int) -> Task:
    """With the GPUs shared out, if it is they that work and none was named."""
    if task.place.device != "cuda":
        return task
    here = gpus_here()
    return task.on(f"cuda:{here[number % len(here)]}")


class Process:
    """One place of the crew: a process, and after its death another."""

    def __init__(self, number: int, job: Job) -> None:
        self.number, self.job, self.slot = number, job, job.slot
        self._process: subprocess.Popen[str] | None = None
        self._stopped, self._lock = False, Lock()

    def ask(self, shard: int, fewest: bool = False) -> Answer | None:
        """See ``Hand``."""
        try:
            process = self._alive()
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps({"shard": shard, "fewest": fewest}) + "\n")
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
                self._process.stdin.write(json.dumps(self.job.plain()) + "\n")
            return self._process

    @property
    def name(self) -> str:
        """See ``Stoppable``."""
        process = self._process
        return f"worker {self.number}" + (f" (process {process.pid})" if process else "")

    def bury(self) -> str:
        """See ``Hand``."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return "it was gone"
        process.kill()  # whose pipe is closed, whatever else it still does
        code = process.wait()
        close_pipes(process)
        return _how(code)

    def stop(self) -> None:
        """See ``Stoppable``."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    @property
    def stopped(self) -> bool:
        return self._stopped


def _start() -> "subprocess.Popen[str]":
    return talking("pipeline.shards.worker", None)


def talking(module: str, errors: int | None, apart: bool = False, **more: str) -> "subprocess.Popen[str]":
    """A process that runs a module of ours, with ``more`` in its environment, and speaks through pipes; what it says
    on stderr goes where ours does, or to ``errors``. ``apart``: it and all that it starts are a process group.
    """
    root = str(Path(pipeline.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return subprocess.Popen(
        [sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
        encoding="utf-8", env=os.environ | {"PYTHONPATH": path} | more, start_new_session=apart,
    )  # fmt: skip


def close_pipes(process: "subprocess.Popen[str]") -> None:
    for pipe in (process.stdin, process.stdout):
        try:
            if pipe is not None:
                pipe.close()
        except OSError:  # what was not sent yet has nobody to go to
            pass


def _how(code: int) -> str:
    """``signal SIGKILL``, ``exit code 1``."""
    return f"signal {Signals(-code).name}" if code < 0 else f"exit code {code}"
