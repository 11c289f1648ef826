"""What the first step on a machine may come to: a wait for compilers, which is said, or a fault of theirs."""

from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import SubprocessError

import torch

from coreinfer.errors import CoreInferError

PATIENCE = 2.0  # seconds; what was compiled before loads in less


class NotCompiled(CoreInferError):
    """A kernel that this machine cannot make or start; ``why`` says which fault of what."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why} is not decoded by coreinfer's own steps: use Transformers' generate")
        self.why = why


@contextmanager
def faults_named(device: str) -> Iterator[None]:
    """Turn what Triton, its compilers and the driver raise into one line; no memory is another matter.

    Raises:
        NotCompiled: the kernels do not work here; nothing was made with them.
    """
    from triton.errors import TritonError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (TritonError, RuntimeError, SubprocessError, OSError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # A compiler's last line says what is wrong; CUDA's first does, and its last how to debug.
        why = lines[:1] if any("CUDA" in line for line in lines[:1]) else lines[-1:]
        words = ": ".join([type(error).__name__, *why])[:300]
        raise NotCompiled(f"the device {device!r}, where a kernel fails ({words})") from error
