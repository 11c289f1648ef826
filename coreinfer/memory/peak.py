"""How much memory was resident at the most: the process's on a CPU, torch's on a GPU."""

from pathlib import Path

import torch

from coreinfer.errors import CoreInferError

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """``bytes``: the most since this began, or began again, beyond what was there when it was made."""

    def __init__(self, device: torch.device) -> None:
        """
        Raises:
            CoreInferError: a system that does not say.
        """
        self.device, self.on_gpu = device, device.type == "cuda"
        if not self.on_gpu and not STATUS.exists():
            raise CoreInferError("this system does not say how much memory a process has: measure on Linux")
        self.restart()
        self.base = torch.cuda.memory_allocated(device) if self.on_gpu else _status("RssAnon") + _status("RssFile")

    def restart(self) -> None:
        if self.on_gpu:
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            CLEAR.write_text("5")  # the kernel's own peak begins anew (proc(5))

    @property
    def bytes(self) -> int:
        if self.on_gpu:
            return torch.cuda.max_memory_allocated(self.device) - self.base
        return _status("VmHWM") - self.base


def _status(name: str) -> int:
    lines = STATUS.read_text("ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))
