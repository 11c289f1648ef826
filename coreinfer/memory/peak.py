"""How much memory was resident at the most: the process's on a CPU, torch's on a GPU."""

from pathlib import Path

import torch

from coreinfer.errors import CoreInferError

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """``bytes``: the most since this began, beyond what was there then."""

    def __init__(self, device: torch.device) -> None:
        """
        Raises:
            CoreInferError: a system that does not say.
        """
        self.device, self.on_gpu = device, device.type == "cuda"
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(device)
            self.base = torch.cuda.memory_allocated(device)
            return
        if not STATUS.exists():
            raise CoreInferError("this system does not say how much memory a process has: measure on Linux")
        CLEAR.write_text("5")  # the kernel's peak begins anew (proc(5))
        self.base = _status("RssAnon") + _status("RssFile")

    @property
    def bytes(self) -> int:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated(self.device) - self.base
        return _status("VmHWM") - self.base


def _status(name: str) -> int:
    lines = STATUS.read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
