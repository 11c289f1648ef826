"""Actors on a Ray cluster, each with its own model and running sums, on a GPU or on CPUs. Ray itself runs in another
process (``bridge.py``); this is how it is spoken to.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any

import torch

from coreinfer.errors import CoreInferError
from coreinfer.progress import Tick
from pipeline.shards.crew import Hear, Left, Slots
from pipeline.shards.hands import work_all
from pipeline.shards.job import Job
from pipeline.shards.labour import Answer
from pipeline.shards.processes import close_pipes, talking
from pipeline.shards.tasks import Task

LOCAL = "local"
CONNECT = 55.0  # seconds in which a cluster must take us
NO_TALK = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would tell its makers
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",  # how long it waits for a head that is gone
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # on every system: else it listens to the whole network


class Cluster:
    """A Ray cluster that was connected to, or a local one, which ends with this."""

    def __init__(self, address: str | None, workers: int | None, gpus: bool) -> None:
        self.address = address or LOCAL
        self._queues = dict[str, SimpleQueue[Answer]]({"": SimpleQueue()})
        self._lock = Lock()
        more = NO_TALK | (LOOPBACK if self.address == LOCAL else {})
        self._folder = tempfile.mkdtemp(prefix="coreinfer-ray-")  # of a local Ray
        self._process = talking("pipeline.shards.bridge", subprocess.DEVNULL, apart=True, **more)
        Thread(target=self._listen, daemon=True).start()
        try:
            self._say({"address": self.address, "workers": workers, "gpus": gpus, "folder": self._folder})
            answer = self._first()
        except BaseException:
            self.close()
            raise
        self.workers = int(answer["workers"])

    def _first(self) -> Answer:
        try:
            answer = self._queues[""].get(timeout=CONNECT)
        except Empty:
            answer = {"refused": f"it did not take us within {CONNECT:.0f} s"}
        if "workers" not in answer:
            why = answer.get("refused", "it ended")
            raise CoreInferError(f"the Ray cluster ({self.address}) cannot be used: {why}")
        return answer

    def hand(self) -> str:
        """A new name to ask under. Answers under old ones, which nobody waits for any more, are nobody's."""
        name = uuid.uuid4().hex
        self._queues[name] = SimpleQueue()
        return name

    def ask(self, hand: str, place: int, **what: Any) -> Answer:
        """What the actor in a place answers.

        Raises:
            CoreInferError: the cluster is gone.
        """
        self.tell(hand, place, **what)
        answer = self._queues[hand].get()
        if "gone" in answer:
            raise CoreInferError(
                f"the Ray cluster ({self.address}) is gone: start it and run the same command again, which goes on "
                "from what was done"
            )
        return answer

    def tell(self, hand: str, place: int, **what: Any) -> None:
        """Something that is not answered."""
        self._say({"hand": hand, "place": place, **what})

    def hang_up(self, hand: str) -> None:
        """Let whoever waits under this name hear that the actor is dead."""
        self._queues[hand].put({"dead": "it was stopped"})

    def _say(self, line: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            with self._lock:
                self._process.stdin.write(json.dumps(line) + "\n")
                self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            self._queues[line.get("hand", "")].put({"gone": True})

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for text in self._process.stdout:
            line = json.loads(text)
            self._queues[line.pop("hand")].put(line)
        for queue in list(self._queues.values()):
            queue.put({"gone": True})

    def close(self) -> None:
        """The actors end, and a local Ray, whatever state it is in."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with suppress(ProcessLookupError, AttributeError):  # nobody is left; Windows, which has no groups
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        close_pipes(self._process)
        shutil.rmtree(self._folder, ignore_errors=True)


class Actors:
    """The actors of a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def work(self, task: Task, shards: Sequence[int], slots: Slots, tick: Tick, hear: Hear) -> None:
        """See ``Crew``."""
        count = min(self.cluster.workers, len(shards))
        task = task.on(task.place.device.partition(":")[0])  # Ray shows each actor its own GPU alone
        with _signed(task.store.folder) as sign:
            threads = torch.get_num_threads()
            jobs = [Job(task, slots.name(number), threads, sign) for number in range(count)]
            work_all([Remote(self.cluster, number, job) for number, job in enumerate(jobs)], task, shards, tick, hear)


@contextmanager
def _signed(folder: Path) -> Iterator[Path]:
    """A file by which others see that they see this folder."""
    sign = folder / f".{uuid.uuid4().hex}.sign.part"
    sign.touch()  # as a .part, so that it is swept where this is killed
    try:
        yield sign
    finally:
        sign.unlink(missing_ok=True)  # also, a network drive looks again at a folder that changed


class Remote:
    """One place of the crew: an actor, and after its death another."""

    def __init__(self, cluster: Cluster, number: int, job: Job) -> None:
        self.cluster, self.number, self.slot, self._hand = cluster, number, job.slot, cluster.hand()
        self._stopped, self._how, self._sign = False, "", job.sign
        cluster.tell(self._hand, number, job=job.plain())

    def ask(self, shard: int, fewest: bool = False) -> Answer | None:
        """See ``Hand``."""
        if self._stopped:
            return None
        answer = self.cluster.ask(self._hand, self.number, shard=shard, fewest=fewest)
        if "left" in answer:
            raise Left(f"{answer['left']}: give fewer --workers, or make room there")
        self._how = str(answer.get("dead", ""))
        return None if "dead" in answer else answer

    @property
    def name(self) -> str:
        """See ``Stoppable``."""
        return f"worker {self.number} (an actor of Ray's)"

    def bury(self) -> str:
        """See ``Hand``."""
        self.cluster.tell(self._hand, self.number, end=True)
        if self._sign is not None:
            self._sign.touch()  # who takes its place looks for it, a day later too
        return self._how

    def stop(self) -> None:
        """See ``Stoppable``."""
        self._stopped = True
        self.cluster.hang_up(self._hand)

    @property
    def stopped(self) -> bool:
        return self._stopped
