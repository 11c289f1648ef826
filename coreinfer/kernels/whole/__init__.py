"""CUDA C++ that is compiled for a model's shape when it is first decoded (NVRTC), and launched as one grid."""

import ctypes
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

INCLUDED = ("ring.cuh", "telling.cuh", "vectors.cuh", "attend.cuh", "asking.cuh")
Shape = tuple[tuple[str, int | float], ...]  # names and values of the constants that a kernel is compiled for


class NotBuilt(RuntimeError):
    """CUDA's compiler or driver refuses the kernel; the message is theirs."""


def buildable() -> bool:
    """Whether PyTorch has brought the bindings that compile and launch: its packages for CUDA do."""
    return find_spec("cuda") is not None and find_spec("cuda.bindings") is not None


def header(shape: Shape) -> str:
    """The constants as C++; floats as float32."""

    def line(name: str, value: int | float) -> str:
        return f"constexpr {'float' if isinstance(value, float) else 'int'} {name} = {value!r};\n"

    return "#pragma once\n" + "".join(line(name, value) for name, value in shape)


def _checked(made: tuple[Any, ...]) -> Any:
    """What CUDA gave besides its status."""
    status, *given = made
    if int(status):
        raise NotBuilt(f"CUDA: {status.name}")
    return given[0] if given else None


class Kernel:
    """The function ``step`` of a binary, on the current device; ``shared`` bytes of memory for each program."""

    def __init__(self, binary: bytes, shared: int) -> None:
        from cuda.bindings import driver

        self.driver, self.shared = driver, shared
        self.module = _checked(driver.cuModuleLoadData(binary))
        self.function = _checked(driver.cuModuleGetFunction(self.module, b"step"))
        kind = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        _checked(driver.cuFuncSetAttribute(self.function, kind, shared))

    def launch(self, programs: int, threads: int, arguments: Sequence[Tensor]) -> None:
        """In the current stream, cooperatively: all programs are there at once, or none, so none waits in vain."""
        given = tuple(x.data_ptr() for x in arguments), tuple(ctypes.c_void_p for _ in arguments)
        stream = torch.cuda.current_stream().cuda_stream
        _checked(self.driver.cuLaunchCooperativeKernel(
            self.function, programs, 1, 1, threads, 1, 1, self.shared, stream, given
        ))  # fmt: skip


@cache
def compiled(shape: Shape, device: torch.device) -> Kernel:
    """
    Raises:
        NotBuilt: it does not compile, or cannot be loaded.
    """
    major, minor = torch.cuda.get_device_capability(device)
    binary = _binary(header(shape), f"sm_{major}{minor}")
    with torch.cuda.device(device):
        return Kernel(binary, int(dict(shape)["SHARED"]))


def _binary(constants: str, architecture: str) -> bytes:
    from cuda.bindings import nvrtc

    folder = files(__package__)
    texts = [constants.encode(), *((folder / name).read_bytes() for name in INCLUDED)]
    names = [b"shape.cuh", *(name.encode() for name in INCLUDED)]
    source = (folder / "step.cu").read_bytes()
    program = _checked(nvrtc.nvrtcCreateProgram(source, b"step.cu", len(texts), texts, names))
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(status):
        log = b" " * _checked(nvrtc.nvrtcGetProgramLogSize(program))
        _checked(nvrtc.nvrtcGetProgramLog(program, log))
        raise NotBuilt(log.decode(errors="replace").rstrip("\0 \n"))
    binary = b" " * _checked(nvrtc.nvrtcGetCUBINSize(program))
    _checked(nvrtc.nvrtcGetCUBIN(program, binary))
    return binary
