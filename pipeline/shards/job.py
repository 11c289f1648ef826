"""What a worker elsewhere is told, and what it looks at before it does anything."""

from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any, Self

import torch

from coreinfer.errors import CoreInferError
from pipeline.shards.keys import check_here
from pipeline.shards.labour import Labour
from pipeline.shards.tasks import KINDS, Task


@dataclass(frozen=True)
class Job:
    """A stage's task in one slot, with so many ``threads``. ``sign``: a file that whoever sees the folder sees."""

    task: Task
    slot: str
    threads: int
    sign: Path | None = None

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        kind, sign = type(self.task).__name__, self.sign and str(self.sign)
        return {"kind": kind, "task": self.task.plain(), "slot": self.slot, "threads": self.threads, "sign": sign}

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Self:
        task: Any = KINDS[raw["kind"]]
        return cls(task.of(raw["task"]), raw["slot"], raw["threads"], raw["sign"] and Path(raw["sign"]))

    def begin(self) -> Labour:
        """In this process.

        Raises:
            CoreInferError: it does not see the files, or its numbers would be others.
        """
        from coreinfer.libraries import quiet_libraries

        quiet_libraries()
        torch.set_num_threads(self.threads)
        self._check()
        return Labour(self.task, self.slot)

    def _check(self) -> None:
        for path in filter(None, (self.sign, self.task.place.passages)):
            if not path.exists():
                raise CoreInferError(
                    f"{node()} does not see {path}: all machines must share the folder that the build works in: add "
                    "--work FOLDER, one that they share"
                )
        check_here(self.task.store, self.task.place.device)
