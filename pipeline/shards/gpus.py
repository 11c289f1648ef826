"""The GPUs of this machine that a build works on: all of them, or where a launcher began several processes here, this
one's share.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

# The number of a process on its machine, and of how many: of torchrun, and of srun.
LAUNCHED = (("LOCAL_RANK", "LOCAL_WORLD_SIZE"), ("SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"))


def gpus_here() -> list[int]:
    """Their numbers; the first is the one that this process itself computes on."""
    return shared_out(torch.cuda.device_count(), os.environ)


def shared_out(gpus: int, said: Mapping[str, str]) -> list[int]:
    """Those of so many ``gpus`` that are this process's, as its environment says; of more processes than GPUs, several
    have the same one.
    """
    number, of = next((found for names in LAUNCHED if (found := _said(said, names))), (0, 1))
    return [gpu for gpu in range(gpus) if gpu % of == number] or [number % max(1, gpus)][:gpus]


def _said(said: Mapping[str, str], names: tuple[str, str]) -> tuple[int, int] | None:
    number, of = (said.get(name, "") for name in names)
    return (int(number), int(of)) if number.isdecimal() and of.isdecimal() and int(number) < int(of) else None


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
    finally:
        model.to(device)
