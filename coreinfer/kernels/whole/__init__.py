"""CUDA C++ that is compiled for a model's shape when it is first decoded (NVRTC), and launched as one grid."""

import ctypes
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coreinfer.caching import cache_folder
from coreinfer.errors import CoreInferError, in_words
from coreinfer.places import moved_in

INCLUDED = ("ring.cuh", "telling.cuh", "vectors.cuh", "attend.cuh", "asking.cuh")
DIGEST = hashlib.sha256().digest_size  # bytes before a kept binary: of one that is not whole another is made
Shape = tuple[tuple[str, int | float], ...]  # names and values of the constants that a kernel is compiled for


class NotBuilt(RuntimeError):
    """CUDA's compiler or driver refuses the kernel; the message is theirs."""


def buildable() -> bool:
    """Whether the bindings that compile and launch are there: recent PyTorch for CUDA brings them."""
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


def compiled(shape: Shape, device: torch.device) -> Kernel:
    """
    Raises:
        NotBuilt: it does not compile, or cannot be loaded.
    """
    try:
        return _compiled(shape, device)
    except (NotBuilt, torch.OutOfMemoryError):
        raise
    except (ImportError, OSError, RuntimeError) as error:  # of bindings that do not find their libraries
        raise NotBuilt(in_words(error)) from error


@cache
def _compiled(shape: Shape, device: torch.device) -> Kernel:
    major, minor = torch.cuda.get_device_capability(device)
    binary = kept_binary(header(shape), f"sm_{major}{minor}")
    with torch.cuda.device(device):
        return Kernel(binary, int(dict(shape)["SHARED"]))


def kept_binary(constants: str, architecture: str) -> bytes:
    """From the cache, or compiled and put there where that is possible."""
    from cuda.bindings import nvrtc

    texts = [constants.encode(), *((files(__package__) / name).read_bytes() for name in (*INCLUDED, "step.cu"))]
    version = ".".join(map(str, (*nvrtc.nvrtcVersion()[1:], architecture)))
    key = hashlib.sha256(b"\0".join([version.encode(), *texts])).hexdigest()
    place: Path | None = None
    with suppress(OSError, CoreInferError):
        place = cache_folder("kernels") / f"{key}.cubin"
        digest, binary = (held := place.read_bytes())[:DIGEST], held[DIGEST:]
        if digest == hashlib.sha256(binary).digest():
            return binary
    binary = _binary(texts[:-1], texts[-1], architecture)
    if place is not None:
        with suppress(OSError):  # a full or read-only place: the next process compiles again
            place.parent.mkdir(parents=True, exist_ok=True)
            with moved_in(place) as part:
                part.write_bytes(hashlib.sha256(binary).digest() + binary)
    return binary


def _binary(included: Sequence[bytes], source: bytes, architecture: str) -> bytes:
    from cuda.bindings import nvrtc

    names = [b"shape.cuh", *(name.encode() for name in INCLUDED)]
    program = _checked(nvrtc.nvrtcCreateProgram(source, b"step.cu", len(names), list(included), names))
    try:
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if int(status):
            log = bytes(max(2, _checked(nvrtc.nvrtcGetProgramLogSize(program))))
            _checked(nvrtc.nvrtcGetProgramLog(program, log))
            raise NotBuilt(log.decode(errors="replace").rstrip("\0 \n"))
        binary = bytes(max(2, _checked(nvrtc.nvrtcGetCUBINSize(program))))
        _checked(nvrtc.nvrtcGetCUBIN(program, binary))
        return binary
    finally:
        nvrtc.nvrtcDestroyProgram(program)
