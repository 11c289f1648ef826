"""A long job's log in a file: a line when a stage begins or ends, a shard is done or fails, a worker starts or dies.

Lines are JSON objects where the file's name ends in .jsonl, else text. A file that is there is continued, since a job
that was stopped goes on; so several jobs may share one.
"""

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from platform import node
from types import TracebackType
from typing import Any, Self

from coreinfer.places import check_file, writing
from coreinfer.progress import Gauge, Stage

REMEDY = "choose another --log"
FIRST = ("time", "stage", "shard", "worker", "what")  # in a line of text; what else there is follows by name


class Log:
    """``path``: None: nothing is written."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path and path.absolute()  # wherever the job works later
        self._stage, self._began = "", 0.0
        if path is not None:
            check_file(path, REMEDY)

    def put(self, what: str, **facts: Any) -> None:
        """One line, with the time and the stage; facts that are None or empty are left out.

        Raises:
            CoreInferError: the disk refuses.
        """
        if self.path is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        row = {"time": now, "stage": self._stage, "what": what, **facts}
        row = {name: value for name, value in row.items() if value is not None and value != ""}
        text = json.dumps(row, ensure_ascii=False) if self.path.suffix == ".jsonl" else _in_text(row)
        with writing(self.path, REMEDY), self.path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    def shown(self, stage: Stage) -> Stage:
        """The same stages, with a line when each begins and ends."""

        def begin(name: str, total: int | None) -> Gauge:
            self._end()
            self._stage, self._began = name, time.perf_counter()
            self.put("begun", of=total)
            return stage(name, total)

        return begin

    def _end(self) -> None:
        if self._stage:
            self.put("ended", seconds=round(time.perf_counter() - self._began, 3))
        self._stage = ""

    def __enter__(self) -> Self:
        self.put("job begun", host=node(), process=os.getpid())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._end()
            self.put("job ended")
        else:
            self.put("job failed", why=str(error) or type(error).__name__)


def _in_text(row: dict[str, Any]) -> str:
    """``2026-11-26T20:00:00.000Z embed shard 3 worker 1 done seconds 2.5``."""
    named = [row["stage"]] if "stage" in row else []
    named += [f"{name} {row[name]}" for name in ("shard", "worker") if name in row]
    rest = [f"{name} {value}" for name, value in row.items() if name not in FIRST]
    return " ".join(" ".join([row["time"], *named, row["what"], *rest]).split())
