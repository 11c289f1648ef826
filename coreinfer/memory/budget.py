"""A language model under a budget of memory: what it would take is known before a weight is read."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from coreinfer.caching import cache_folder
from coreinfer.decode.families import unsupported
from coreinfer.errors import CoreInferError
from coreinfer.hub import model_place
from coreinfer.memory import bundle
from coreinfer.memory.buffers import DoubleBuffer, host_of
from coreinfer.memory.checkpoint import Checkpoint
from coreinfer.memory.facts import Facts, facts_of
from coreinfer.memory.linear import Stream, StreamedLinear
from coreinfer.memory.mapped import Mapped, return_what_is_freed
from coreinfer.memory.plan import ROOM, Plan
from coreinfer.memory.sizes import size_in_words
from coreinfer.mlp import FUSED, put
from coreinfer.models import check_vocabulary, dtype_of, load_model, loading, structure
from coreinfer.places import absolute
from coreinfer.progress import Stage, unseen


class Budget:
    """A model by name, and the bytes that its weights, caches and activations may take on its device.

    The interpreter, its libraries and the tokenizer are not part of that; ``beside`` are bytes of something that is.

    Raises:
        CoreInferError: a model that cannot be streamed, or one that cannot be loaded.
    """

    def __init__(
        self, name: str, dtype: str, device: str, limit: int, folder: Path | None = None, beside: int = 0
    ) -> None:
        self.name, self.device, self.dtype = name, torch.device(device), dtype_of(dtype, device)
        if self.device.type not in ("cpu", "cuda"):
            raise CoreInferError(f"a memory budget is for the devices cpu and cuda, not {device!r}: leave out --memory")
        self.where, self.folder = model_place(name), folder or cache_folder("bundles")
        with loading(name):
            self.empty = _empty(self.where, self.dtype)
        whole = Plan(facts_of(self.empty, self.dtype), limit, self.device.type == "cuda", False, beside)
        fits = whole.needs(whole.facts.neurons - 1, ROOM, ROOM) <= limit
        self.plan = replace(whole, streamed=not fits)

    @property
    def facts(self) -> Facts:
        return self.plan.facts

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        with loading(self.name):
            found: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(self.where)
        return found

    def load(self, stage: Stage = unseen) -> PreTrainedModel:
        """The model: as ever if all of it fits, else with its neurons streamed from its bundle.

        Raises:
            CoreInferError: what ``load_model`` or the bundle raise.
        """
        if self.device.type == "cuda":
            _limit_allocator(self.device, self.plan.limit)
        else:
            return_what_is_freed()
        if not self.plan.streamed:
            return load_model(self.name, _word(self.dtype), str(self.device))[0]
        with loading(self.name):
            model = self._streamed(Checkpoint(self.where), stage)
            check_vocabulary(model, self.tokenizer)
        return model

    def _streamed(self, checkpoint: Checkpoint, stage: Stage) -> PreTrainedModel:
        weights, f = _weights(self.empty), self.facts
        shape = bundle.Shape(f.layers, f.width, f.parts, f.hidden, _word(self.dtype))
        named = self.where if self.name == "demo" else self.name  # not the cache's folder, where the Hub is silent
        place = bundle.place_of(self.folder, absolute(named, ""), shape.dtype)
        if not bundle.ready(place, shape, checkpoint):
            tick = stage(f"writing the neurons of {self.name} to {place}, once", f.layers)
            bundle.write(place, shape, checkpoint, weights, tick)
        model = _resident(self.empty, checkpoint, {name for names in weights for name in names}, self.dtype, self.where)
        _stream(model, self._stream_of(Mapped(place, shape)))
        made: Any = model.requires_grad_(False)
        return cast(PreTrainedModel, made.to(self.device).train(False))

    def _stream_of(self, mapped: Mapped) -> Stream:
        if self.device.type == "cpu":
            return mapped
        return DoubleBuffer(host_of(mapped), len(mapped), self.device)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A device whose memory ends all the same becomes one line."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise CoreInferError(
                f"the memory of {size_in_words(self.plan.limit)} was not enough for this text: raise it, shorten the "
                "prompt or lower --keep"
            ) from error


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _empty(where: str, dtype: torch.dtype) -> PreTrainedModel:
    """The model without weights.

    Raises:
        CoreInferError: it cannot be streamed.
    """
    if where.endswith(".gguf"):
        raise CoreInferError(f"a memory budget needs safetensors weights, {where} is GGUF: leave out --memory")
    config = AutoConfig.from_pretrained(where)
    if getattr(config, "quantization_config", None) is not None:
        raise CoreInferError(f"a memory budget needs plain weights, those of {where} are quantised: leave out --memory")
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)  # type: ignore[no-untyped-call]
    if why := unsupported(model):
        raise CoreInferError(
            f"a memory budget is for models that coreinfer's own steps decode, not {why}: leave out --memory"
        )
    return model


def _weights(model: PreTrainedModel) -> list[list[str]]:
    """The names of each layer's MLP weights, inputs before the output."""
    names = {id(module): path for path, module in model.named_modules()}
    return [[f"{names[id(mlp.modules[name])]}.weight" for name in mlp.names] for mlp in structure(model)]


def _resident(
    empty: PreTrainedModel, checkpoint: Checkpoint, streamed: set[str], dtype: torch.dtype, where: str
) -> PreTrainedModel:
    """The model with all weights but the streamed ones, which are one number each, seen as a matrix.

    Raises:
        ValueError: a weight is missing.
    """
    keys = {checkpoint.key_of(name) for name in streamed}
    one = torch.zeros(1, dtype=dtype)
    state = {k: one.expand(checkpoint.shape(k)) if k in keys else checkpoint.read(k, dtype) for k in checkpoint.keys}
    kind: Any = type(empty)
    model, report = kind.from_pretrained(
        None, config=empty.config, state_dict=state, dtype=dtype, output_loading_info=True,
        generation_config=_generation_config(where),
    )  # fmt: skip
    if report["missing_keys"]:
        raise ValueError(f"it holds no weights for {min(report['missing_keys'])}")
    model.config.name_or_path = where
    made: PreTrainedModel = model
    return made


def _generation_config(where: str) -> GenerationConfig | None:
    """The model's own; None where the configuration alone says how it generates."""
    try:
        return GenerationConfig.from_pretrained(where)
    except OSError:
        return None


def _stream(model: PreTrainedModel, stream: Stream) -> None:
    """Let the MLPs compute on streamed neurons."""
    for number, mlp in enumerate(structure(model)):
        fused = mlp.inputs == (FUSED,)
        parts: dict[str, tuple[int, ...]] = {name: (at,) for at, name in enumerate(mlp.inputs)}
        parts |= {mlp.output: (-1,), **({FUSED: (0, 1)} if fused else {})}
        made: dict[str, Any] = {n: StreamedLinear(_linear(m), stream, number, parts[n]) for n, m in mlp.modules.items()}
        put(mlp, made)


def _linear(module: Any) -> torch.nn.Linear:
    assert isinstance(module, torch.nn.Linear), "unsupported() lets only these through"
    return module


def _limit_allocator(device: torch.device, limit: int) -> None:
    """Torch's allocator hands out no more than that."""
    index = torch.cuda.current_device() if device.index is None else device.index
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), index)
