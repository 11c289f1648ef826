"""A worker process: the first line of stdin says what it is for, each further one is a shard, and each is answered by a
line on stdout when the shard is committed. When stdin ends, so does it: whoever it works for is gone.
"""

import json
import os
import signal
import sys
import traceback
from queue import SimpleQueue
from threading import Thread
from typing import Any, TextIO

from coreinfer.errors import CoreInferError


def main() -> None:
    """Work until nobody is there to work for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; who gave the work ends it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    lines = SimpleQueue[str]()
    Thread(target=_listen, args=(lines,), daemon=True).start()
    do: Any = None
    job = json.loads(lines.get())
    while True:
        shard = int(lines.get())
        try:
            do = do or _begin(job)
            ticks = list[int]()
            do(shard, ticks.append)
            _answer(answers, {"done": sum(ticks)})
        except CoreInferError as error:
            _answer(answers, {"refused": str(error)})
        except OSError as error:
            _answer(answers, {"disk": [error.errno, error.strerror or str(error)]})
        except Exception:
            _answer(answers, {"fault": traceback.format_exc()})


def _listen(lines: "SimpleQueue[str]") -> None:
    for line in sys.stdin:
        lines.put(line)
    os._exit(1)  # at once, also in the midst of a shard: nothing half-done is ever committed


def _begin(job: dict[str, Any]) -> Any:
    import torch

    from coreinfer.libraries import quiet_libraries
    from pipeline.shards.tasks import EmbedTask, RecordTask

    quiet_libraries()
    torch.set_num_threads(job["threads"])
    kinds: dict[str, Any] = {"EmbedTask": EmbedTask, "RecordTask": RecordTask}
    task = kinds[job["kind"]].of(job["task"])
    return task.begin(task.load(), job["slot"])


def _answer(answers: TextIO, what: dict[str, Any]) -> None:
    answers.write(json.dumps(what) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
