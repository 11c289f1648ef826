"""A worker process: the first line of stdin says what it is for, each further one which shard to do and how
(``Desk.do``), and each is answered by a line on stdout when the shard is committed. When stdin ends, so does it:
whoever it works for is gone.
"""

import json
import os
import signal
import sys
from queue import SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from pipeline.shards.labour import Labour


def main() -> None:
    """Work until nobody is there to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who gave the work ends it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines = SimpleQueue[str]()
    Thread(target=_listen, args=(lines,), daemon=True).start()
    desk = Desk(json.loads(lines.get()))
    while True:
        _answer(answers, desk.do(**json.loads(lines.get())))


class Desk:
    """Where a worker sits: its labour begins with its first shard, so that what is wrong then is answered too."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._job = job
        self._labour: Labour | None = None

    def do(self, shard: int, fewest: bool = False) -> dict[str, Any]:
        """Do a shard, and answer: see ``Labour``."""
        from coreinfer.errors import CoreInferError
        from pipeline.shards.job import Job

        try:
            self._labour = self._labour or Job.of(self._job).begin()
        except CoreInferError as error:
            return {"refused": str(error)}
        return self._labour.answer(shard, fewest=fewest)


def _listen(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)  # at once, also in the midst of a shard: nothing half-done is ever committed


def _answer(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
