"""A prefill's layers on a GPU: two buffers, one being filled from the host while the other computes."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coreinfer.memory.mapped import Mapped

SPARED = 1 << 31  # bytes of the host's memory that pinning leaves to others


class DoubleBuffer:
    """``layer(number)``: that layer of the host's, on the device; the next is on its way when it returns.

    A layer lies in the buffer of its parity. It is copied on a stream of its own, which first waits for all that was
    launched before: what computed with the buffer is done, and what computes with the other one runs beside the copy.
    """

    def __init__(self, host: Callable[[int], Tensor], layers: int, device: torch.device) -> None:
        self.host, self.layers, self.device = host, layers, device
        first, on_gpu = host(0), device.type == "cuda"
        self.buffers = [torch.empty(first.shape, dtype=first.dtype, device=device) for _ in range(2)]
        self.holds = [-1, -1]
        self.side: Any = torch.cuda.Stream(device) if on_gpu else None  # type: ignore[no-untyped-call]
        self.filled: list[Any] = [torch.cuda.Event() for _ in range(2)] if on_gpu else []  # type: ignore[no-untyped-call]

    def layer(self, number: int) -> Tensor:
        self._fill(number)
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_event(self.filled[number % 2])
        if number + 1 < self.layers:
            self._fill(number + 1)
        return self.buffers[number % 2]

    @torch.no_grad()
    def _fill(self, number: int) -> None:
        mine = number % 2
        if self.holds[mine] == number:
            return
        self.holds[mine] = -1  # while it is neither
        with self._aside():
            self.buffers[mine].copy_(self.host(number), non_blocking=True)
            if self.side is not None:
                self.filled[mine].record(self.side)
        self.holds[mine] = number

    def _aside(self) -> AbstractContextManager[Any]:
        if self.side is None:
            return nullcontext()
        self.side.wait_stream(torch.cuda.current_stream(self.device))
        return torch.cuda.stream(self.side)


def host_of(mapped: Mapped) -> Callable[[int], Tensor]:
    """The layers in pinned memory, from which a GPU copies by itself; or mapped, where the host lacks the room."""
    layers, size = len(mapped), mapped.shape.layer_bytes
    taken = layers * (1 << (size - 1).bit_length())  # torch rounds what it pins up to powers of two
    if taken > free_memory() - SPARED:
        return mapped.layer
    pinned = [torch.empty_like(mapped.layer(number), pin_memory=True).copy_(mapped.layer(number))
              for number in range(layers)]  # fmt: skip
    mapped.leave()
    return pinned.__getitem__


def free_memory() -> int:
    """Bytes of the host's memory that a process can have; 0 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:")), 0)
