"""How fast the memory is, measured here and now: decoding cannot read its weights faster. And how fast the machine
multiplies, which is what bounds many tokens at a time.
"""

import time
from collections.abc import Callable

import torch

GPU_BYTES, CPU_BYTES = 1 << 31, 1 << 28  # too much for any cache
TIMES = 5


def bandwidth(device: str) -> float:
    """Bytes a second that a large copy reads and writes, together, or on a CPU, if that is more, a large product reads;
    the best of a few tries.
    """
    size = GPU_BYTES if device.startswith("cuda") else CPU_BYTES
    a = torch.zeros(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    found = [2 * size / least(lambda: b.copy_(a), device)]
    if device == "cpu":
        matrix = a.view(torch.float32).view(-1, 4096)
        x = torch.zeros(4096)
        found.append(size / least(lambda: torch.mv(matrix, x), device))
    return max(found)


def multiplications(device: str, dtype: torch.dtype, rows: int, inputs: int, outputs: int) -> float:
    """FLOP/s of a linear layer (``inputs`` -> ``outputs``) over so many rows, 2 a weight and row; the best of a few."""
    x, w = (torch.randn(n, inputs, device=device).to(dtype) for n in (rows, outputs))
    with torch.inference_mode():
        return 2 * rows * inputs * outputs / least(lambda: torch.nn.functional.linear(x, w), device)


def least(work: Callable[[], object], device: str) -> float:
    """Seconds of the fastest of ``TIMES`` runs, after one that warms up."""
    return min(seconds(work, device) for _ in range(TIMES + 1))


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one run, until the device is done."""
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


def wait(device: str) -> None:
    """Until the device is done."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
