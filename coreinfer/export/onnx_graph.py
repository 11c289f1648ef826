"""A graph of ONNX in the making: nodes, small constants, and weights that are made one at a time when it is written."""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from coreinfer.errors import CoreInferError
from coreinfer.export.checkpoint import raw
from coreinfer.gguf.tensors import Part

OPSET, IR = 20, 10  # of 2023: the first with Gelu; runtimes since then read both
ALIGNED = 64  # bytes; where a weight begins in its file


def library() -> Any:
    """The package ``onnx``."""
    try:
        import onnx
    except ImportError as error:
        raise CoreInferError("ONNX files need the package onnx: pip install 'coreinfer[onnx]'") from error
    return onnx


class Graph:
    """What is added is kept in order; every method returns the name of its (first) output."""

    def __init__(self) -> None:
        self.onnx = library()
        self.nodes = list[Any]()
        self.weights = list[Part]()
        self._small = dict[str, Any]()

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output."""
        return self.several(kind, 1, *inputs, **attributes)[0]

    def several(self, kind: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """A node of so many outputs."""
        at = len(self.nodes)
        names = [f"{kind}_{at}" if not number else f"{kind}_{at}_{number}" for number in range(outputs)]
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, names, name=names[0], **attributes))
        return names

    def rename(self, old: str, new: str) -> str:
        """An output under a name that callers know."""
        self.nodes.append(self.onnx.helper.make_node("Identity", [old], [new], name=new))
        return new

    def whole(self, *values: int) -> str:
        """int64 (n,)."""
        return self._constant("ints_" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        """A float32."""
        return self._constant(f"float_{value!r}", np.array(value, np.float32))

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        if name not in self._small:
            self._small[name] = self.onnx.numpy_helper.from_array(value, name)
        return name

    def weight(self, name: str, shape: tuple[int, ...], make: Callable[[], Tensor]) -> str:
        """A float32 tensor, made when the file is written."""
        self.weights.append(Part(name, shape, make))
        return name

    def write(self, path: Path, inputs: list[Any], outputs: list[Any], producer: tuple[str, str]) -> None:
        """``path``, and the weights in a file of its name and ``.data`` beside it."""
        data = path.with_name(f"{path.name}.data")
        with data.open("wb") as file:
            held = [self._external(file, data.name, part) for part in self.weights]
            file.flush()
            os.fsync(file.fileno())
        helper = self.onnx.helper
        graph = helper.make_graph(self.nodes, "model", inputs, outputs, [*self._small.values(), *held])
        opsets = [helper.make_opsetid("", OPSET)]
        name, version = producer
        made = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR, producer_name=name, producer_version=version
        )
        path.write_bytes(made.SerializeToString())

    def _external(self, file: Any, name: str, part: Part) -> Any:
        """The initializer of a weight that was written to ``file``."""
        file.write(b"\0" * (-file.tell() % ALIGNED))
        at = file.tell()
        file.write(raw(part.make(), "f32"))
        proto = self.onnx.TensorProto
        made = proto(name=part.name, dims=part.shape, data_type=proto.FLOAT, data_location=proto.EXTERNAL)
        for key, value in (("location", name), ("offset", at), ("length", 4 * math.prod(part.shape))):
            made.external_data.add(key=key, value=str(value))
        return made
