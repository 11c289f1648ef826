"""Ray's driver, in a process of its own: what Ray prints, and how it ends a driver whose cluster is gone, is its alone.

The first line of stdin says which cluster and how many actors (``Wanted``), and is answered by how many there can be.
Then each line says which actor (``place``) is to do what: ``job``: begin, in place of what it did before; ``shard``,
and whether with the ``fewest`` texts together; ``end``. Each shard is answered by a line with the same ``hand`` and the
actor's answer, ``dead`` (how) or ``left`` (why there is no room).
When stdin ends, the actors do, and a Ray that was started here.
"""

import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from pipeline.shards.worker import Desk

ROOM = 45  # seconds in which an actor must be placed and live
FIRST = 180  # ... the first in a place, whose machine may have to read Python and torch from a slow drive
PATIENCE = 45  # ... and in which an actor that works must say that it lives
EVERY = 5  # seconds between two such questions

Line = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """``address``: of a cluster's head, or local, whose files are in the ``folder``, which goes with it.
    ``workers``: None: one a GPU, or one a machine.
    """

    address: str
    workers: int | None
    gpus: bool
    folder: str


class Actor:
    """A desk on some machine of the cluster. It says that it lives while it works."""

    def __init__(self, job: Line) -> None:
        self._desk = Desk(job)

    def do(self, shard: int, fewest: bool) -> Line:
        """See ``Desk``."""
        return self._desk.do(shard, fewest)

    def lives(self) -> bool:
        """At once, in another thread than ``do``."""
        return True


class Place:
    """One place of the crew: an actor, and after its death another."""

    def __init__(self, options: Line, answers: "Answers", number: int) -> None:
        self.lines = SimpleQueue[Line]()
        self._options, self._answers, self._number = options, answers, number
        self._job: Line = {}
        self._actor: Any = None
        self._room = FIRST

    def serve(self) -> None:
        """Line after line."""
        while True:
            line = self.lines.get()
            if "job" in line:
                self._end()
                self._job = line["job"]
            if "shard" in line:
                self._answers.put(line["hand"], self._settled(line["shard"], line["fewest"]))
            if "end" in line:
                self._end()

    def _settled(self, shard: int, fewest: bool) -> Line:
        try:
            return self._done(shard, fewest)
        except Exception as error:  # whoever waits must hear of it, whatever it is
            return {"refused": f"Ray failed: {_in_words(error)}"}

    def _done(self, shard: int, fewest: bool) -> Line:
        try:
            if self._actor is None:
                self._actor = ray.remote(Actor).options(**self._options).remote(self._job)
                ray.get(self._actor.lives.remote(), timeout=self._room)
                self._room = ROOM
            return self._answer(self._actor.do.remote(shard, fewest))
        except GetTimeoutError:
            self._end()
            why = f"did not begin in the Ray cluster within {self._room} s, for want of room or on a slow machine"
            return {"left": f"worker {self._number} {why}"}
        except RayError as error:
            self._end()
            return {"dead": _in_words(error)}

    def _answer(self, doing: Any) -> Line:
        """What comes of a shard, as long as its actor lives."""
        while not ray.wait([doing], timeout=EVERY)[0]:
            try:
                ray.get(self._actor.lives.remote(), timeout=PATIENCE)
            except GetTimeoutError:
                self._end()
                return {"dead": f"it said nothing for {PATIENCE} s"}
        return dict(ray.get(doing))

    def _end(self) -> None:
        if self._actor is not None:
            ray.kill(self._actor)
        self._actor = None


class Answers:
    """Lines on stdout, whole."""

    def __init__(self) -> None:
        self._out, self._lock = os.fdopen(os.dup(1), "w", encoding="utf-8"), Lock()
        os.dup2(2, 1)  # what libraries print is no answer

    def put(self, hand: str, what: Line) -> None:
        """For whoever asked under the name ``hand``; none: for who connects."""
        with self._lock:
            self._out.write(json.dumps({"hand": hand, **what}) + "\n")
            self._out.flush()


def main() -> None:
    """Connect, then work until nobody is there to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who gave the work ends it
    answers = Answers()
    wanted = Wanted(**json.loads(sys.stdin.readline()))
    try:
        _work(wanted, answers)
    finally:
        shutil.rmtree(wanted.folder, ignore_errors=True)  # also where who asked was killed


def _work(wanted: Wanted, answers: Answers) -> None:
    try:
        _connect(wanted.address, wanted.folder)
        count, options = _shared_out(wanted)
    except Exception as error:  # Ray raises bare ones too, where it does not start in time
        answers.put("", {"refused": _in_words(error)})
        return
    places = [Place(options, answers, number) for number in range(count)]
    for place in places:
        Thread(target=place.serve, daemon=True).start()
    answers.put("", {"workers": count})
    for text in sys.stdin:
        line = json.loads(text)
        places[line["place"]].lines.put(line)
    ray.shutdown()


def _connect(address: str, folder: str) -> None:
    more: Line = {"include_dashboard": False, "_temp_dir": folder} if address == "local" else {}
    ray.init(address=address, log_to_driver=False, logging_level="error", **more)


def _shared_out(wanted: Wanted) -> tuple[int, Line]:
    """How many actors, and what each asks the cluster for.

    Of the processors they ask for half: where actors hold all of them, whatever else Ray must place waits for ever.
    """
    has = ray.cluster_resources()
    nodes = sum(bool(node["Alive"]) for node in ray.nodes())
    cores, gpus = max(1, int(has.get("CPU", 1))), int(has.get("GPU", 0))
    if wanted.gpus and not gpus:
        raise ValueError("it has no GPU: leave out --device, or add a machine with one")
    count = wanted.workers or (gpus if wanted.gpus else nodes)
    if wanted.gpus and count > gpus:
        raise ValueError(f"it has {gpus} GPUs, --workers is {count}: give at most {gpus}")
    threads = max(1, cores // max(count, nodes))
    options = {
        "num_cpus": min(threads, cores / count) / 2, "num_gpus": int(wanted.gpus), "max_restarts": 0,
        "max_concurrency": 2, "scheduling_strategy": "SPREAD",
    }  # fmt: skip
    return count, options


def _in_words(error: BaseException) -> str:
    """The sentence of Ray's that says most; it writes paragraphs."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "exit type" in line or "mismatch" in line.lower()]
    return ((telling or lines or [type(error).__name__])[0]).split(" Some common causes")[0].rstrip(". ")[:300]


if __name__ == "__main__":
    main()
