"""On what machine and with which libraries numbers were made."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import coreinfer


def versions() -> dict[str, str]:
    """Of what computes; the project's own also where it runs from a folder and is not installed."""
    return {"coreinfer": coreinfer.__version__, **{name: version(name) for name in ("torch", "transformers")}}


def machine() -> dict[str, Any]:
    """The hardware, the date."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"date": date, "cpu": _cpu(), "cores": cores(), "gpu": gpu, "python": platform.python_version()}


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _cpu() -> str:
    """Its name; on Linux ``platform`` does not know it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def hardware(made: dict[str, Any]) -> str:
    """Of a ``machine``, in words."""
    return f"{made['cpu']}, {made['cores']} cores" + (f", {made['gpu']}" if made["gpu"] else "")
