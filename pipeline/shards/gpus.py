"""The GPUs of this machine that a build works on: all of them, or where a launcher began several processes here, this
one's share.
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch

# The number of a process on its machine, and of how many: of torchrun, and of srun, which says 4(x2) of two machines.
LAUNCHED = (("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"))
BOUND = ("SLURM_GPUS_PER_TASK", "SLURM_TRES_PER_TASK")  # a process of srun's sees no other's GPUs then


def gpus_here() -> list[int]:
    """Their numbers; the first is the one that this process itself computes on. GPUs of another kind than that one are
    left out: last bits depend on the kind.
    """
    mine = shared_out(torch.cuda.device_count(), os.environ)
    return [gpu for gpu in mine if torch.cuda.get_device_name(gpu) == torch.cuda.get_device_name(mine[0])]


def shared_out(gpus: int, said: Mapping[str, str]) -> list[int]:
    """Those of so many ``gpus`` that are this process's, as its environment says; of more processes than GPUs, several
    have the same one.
    """
    number, of = next((found for names in LAUNCHED if (found := _said(said, names))), (0, 1))
    return [gpu for gpu in range(gpus) if gpu % of == number] or [number % max(1, gpus)][:gpus]


def _said(said: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int] | None:
    number, of = (re.match("[0-9]{0,9}", said.get(name, ""))[0] for name in names)  # type: ignore[index]
    bound = any(name in said for name in BOUND) and names[0].startswith("SLURM")
    return (int(number), int(of)) if number and of and int(number) < int(of) and not bound else None


@contextmanager
def left_free(model: Any) -> Iterator[None]:
    """Inside, ``model`` is not on its GPU, whose memory others need."""
    device = model.device
    if device.type != "cuda":
        yield
        return
    model.to("cpu")
    torch.cuda.empty_cache()
    try:
        yield
    except BaseException:
        with suppress(torch.OutOfMemoryError):  # what went wrong first is what is said
            model.to(device)
        raise
    model.to(device)
