"""One sliced model in a folder, for each target: how wide its layers become, how many bytes, and the writing."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import coreinfer
from coreinfer.decode.families import read_network
from coreinfer.decode.network import Network
from coreinfer.export import onnx_network
from coreinfer.export.card import Sizes, ideal_size
from coreinfer.export.checkpoint import DTYPES, bytes_of, write_beside, write_safetensors
from coreinfer.export.sliced import config_of, parts
from coreinfer.mlp import shape_of
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, every


@dataclass(frozen=True)
class Planned:
    """A model that can be written: ``widths`` of its layers, ``size`` in bytes of its weights."""

    widths: list[int]
    size: int
    write: Callable[[Path], None]


class Writer:
    """Writes a model with one set after another. Reading its network lays the weights out anew, in place."""

    def __init__(self, model: Any, tokenizer: Any, target: str, kind: str) -> None:
        self.model, self.tokenizer, self.target, self.kind = model, tokenizer, target, kind

    @cached_property
    def network(self) -> Network:
        return read_network(self.model, bundle=False)

    def planned(self, neurons: NeuronSet) -> Planned:
        """Nothing is written before ``write`` is called, with a folder that is there."""
        if self.target == "gguf":
            return self._gguf(neurons)
        if self.target == "onnx":
            return self._onnx(neurons)
        return self._safetensors(neurons)

    def sizes(self, planned: Planned, neurons: NeuronSet) -> Sizes:
        """What the written bytes stand beside."""
        dense, weights = self._dense
        added = sum(planned.widths) - sum(neurons.per_layer)
        return Sizes(planned.size, dense, ideal_size(dense, weights, neurons.keep, self.kind), added)

    @cached_property
    def _dense(self) -> tuple[int, int]:
        """Bytes of the model with all its neurons, and the weights that are its MLPs'."""
        mlps = find_mlps(self.model)
        shapes = [shape_of(mlp.modules[name]) for mlp in mlps for name in mlp.names]
        weights = sum(rows * columns for rows, columns in shapes)  # type: ignore[misc]
        return self.planned(every(len(mlps), mlps[0].width)).size, weights

    def _gguf(self, neurons: NeuronSet) -> Planned:
        from coreinfer.gguf.writer import planned, size_of, write_gguf

        kind: Any = self.kind
        widths, whole = planned(self.model, self.network, neurons, kind)

        def write(folder: Path) -> None:
            write_gguf(folder / "model.gguf", self.model, self.network, neurons, kind, self.tokenizer)
            write_beside(folder, None, self.model, self.tokenizer)

        return Planned(widths, size_of(whole, kind), write)

    def _onnx(self, neurons: NeuronSet) -> Planned:
        graph = onnx_network.graph_of(self.network, neurons)

        def write(folder: Path) -> None:
            onnx_network.write(folder / "model.onnx", self.network, graph, coreinfer.__version__)
            write_beside(folder, self.model.config, self.model, self.tokenizer)

        return Planned(neurons.per_layer, sum(bytes_of(part, "f32") for part in graph.weights), write)

    def _safetensors(self, neurons: NeuronSet) -> Planned:
        one_width = self.target == "transformers"
        widths = [max(neurons.per_layer)] * len(neurons.layers) if one_width else neurons.per_layer
        whole = list(parts(self.model, neurons, widths))

        def write(folder: Path) -> None:
            write_safetensors(folder / "model.safetensors", whole, self.kind, {"format": "pt"})
            write_beside(folder, self._config(widths, one_width), self.model, self.tokenizer)

        return Planned(widths, sum(bytes_of(part, self.kind) for part in whole), write)

    def _config(self, widths: list[int], one_width: bool) -> Any:
        if one_width:
            return config_of(self.model, widths[0], DTYPES[self.kind])
        config = deepcopy(self.model.config)
        config.dtype, config.intermediate_sizes = DTYPES[self.kind], widths
        return config
