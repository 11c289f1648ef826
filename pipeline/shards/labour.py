"""What every worker does, wherever it is: shard after shard, with one model and one place for running sums, and an
answer for each, as JSON has it: ``done`` (passages), ``refused`` (a line), ``disk`` (number, words) or ``fault``.
"""

import gc
import time
import traceback
from typing import Any

import torch

from coreinfer.errors import CoreInferError, in_words
from coreinfer.progress import Tick
from pipeline.shards.careful import BadShard
from pipeline.shards.tasks import Do, Task

Answer = dict[str, Any]
# Texts run together: as many as usual, or where memory runs out at most so many. On a CPU 16 are not fewer.
FEWER, GPU_FEWER = (None, 4, 1), (None, 16, 4, 1)


class Labour:
    """A task, begun in a slot when the first shard comes."""

    def __init__(self, task: Task, slot: str, model: Any = None) -> None:
        self.task, self.slot, self.model = task, slot, model
        self._begun: Do | None = None

    def answer(self, shard: int, tick: Tick = lambda n: None, fewest: bool = False) -> Answer:
        """Do a shard; ``fewest``: with as few texts together as can be. Only bugs of this method raise."""
        try:
            return self._done(shard, tick, fewest)
        except BadShard as error:
            return {"fault": str(error)}
        except CoreInferError as error:
            return {"refused": str(error)}
        except OSError as error:
            return {"disk": [error.errno, error.strerror or str(error)]}
        except Exception as error:
            return {"fault": f"{type(error).__name__}: {in_words(error)}", "trace": traceback.format_exc()}

    def _done(self, shard: int, tick: Tick, fewest: bool) -> Answer:
        tried = GPU_FEWER if self.task.place.device.startswith("cuda") else FEWER
        for together in tried[-1:] if fewest else tried:
            begun, ticks = time.perf_counter(), list[int]()

            def count(n: int, ticks: list[int] = ticks) -> None:
                ticks.append(n)
                tick(n)

            try:
                self._do()(shard, count, together)
                taken = round(time.perf_counter() - begun, 3)
                return {"done": sum(ticks), "seconds": taken} | ({"together": together} if together else {})
            except Exception as error:
                tick(-sum(ticks))
                self._begun = None  # its sums may hold a part of this shard: what is committed does not
                if not out_of_memory(error):
                    raise
            _free()
        raise BadShard("memory runs out even with one text at a time")

    def _do(self) -> Do:
        if self.model is None:
            self.model = self.task.load()
        if self._begun is None:
            self._begun = self.task.begin(self.model, self.slot)
        return self._begun


def out_of_memory(error: BaseException) -> bool:
    """Whether this says so: Python's, a GPU's, or that of torch on a CPU, which has no type of its own."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def _free() -> None:
    """Once the failed attempt's frames are gone, and what they held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
