"""A decoder's layers, compiled for recording: ``torch.compile`` makes one kernel of what Transformers runs in many,
such as norms, rotations and activation functions.

Whoever records a passage must get the same last bits, so nothing depends on what a process met before: what torch
compiled earlier is forgotten; all is compiled before the first text, for batches that are the same everywhere, with
their sizes left open; no kernel is chosen by its time; and a batch that what was compiled does not fit, such as a
single text, runs as if nothing were.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.errors import CoreInferError, in_words
from coreinfer.models import layers_of

TEXTS, GPU_TEXTS, TOKENS = 12, 48, 176  # of the batches that it is compiled for: equal sizes would be taken for one
ENOUGH = 50_000  # passages from which on a GPU's build gains more than the ten seconds that compiling takes
APART = 0.05  # most that a text's shares in a layer may differ, of 2: rounding to bfloat16 comes to half of it

Shares = Callable[[Tensor, Tensor], NDArray[np.float64]]


class NotCompiled(CoreInferError):
    """Layers that have to run as they are."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the model's layers {why}: give --no-compile")


def worth_compiling(passages: int) -> bool:
    """Whether a GPU's build of so many gains by it, and this torch can compile the same everywhere."""
    if passages < ENOUGH:
        return False
    from torch._inductor import config

    return hasattr(config, "deterministic")  # from torch 2.10 on


class CompiledLayers:
    """The layers of a model; ``ready``: whether they are compiled (``make_ready``)."""

    def __init__(self, model: PreTrainedModel, backend: str = "inductor") -> None:
        self.model, self.backend, self.ready = model, backend, False
        self._layers, self._compiled = layers_of(model), list[Any]()

    @property
    def made_with(self) -> str:
        """What the last bits depend on besides torch."""
        return f"layers compiled by {_compiler() if self.model.device.type == 'cpu' else _triton()}"

    def make_ready(self, shares: Shares, most: int) -> None:
        """Compile, and compare with what is not compiled; ``shares`` (B, L, F) of token ids and their mask (B, T), in
        texts of at most ``most`` tokens.

        Raises:
            NotCompiled: it cannot be, or computes something else.
        """
        torch._dynamo.reset()  # what is known of a class's forward, from another model too, would be gone on with
        batches = list(_batches(self.model, most))
        before = _graphs()
        try:
            wanted = [shares(*batch) for batch in batches]
            self._compile()
            with self._in_place():
                got = [shares(*batch) for batch in batches]
        except Exception as error:  # of dynamo, inductor, Triton, or the compilers that they call; no memory
            why = in_words(getattr(error, "inner_exception", error))  # dynamo's own words are of itself
            raise NotCompiled(f"cannot be compiled ({why})") from error
        if _graphs() == before:
            raise NotCompiled("are not compiled: torch.compile is turned off here")
        off = np.max([np.abs(a - b).sum(-1).max() for a, b in zip(got, wanted, strict=True)])
        if not off <= APART:
            raise NotCompiled(f"compute something else when they are compiled (off by {off:.3g})")
        self.ready = True

    def _compile(self) -> None:
        if len(self._layers) != (count := self.model.config.get_text_config().num_hidden_layers):
            raise ValueError(f"of {count} layers {len(self._layers)} are found")
        options: Any = {"deterministic": True} if self.backend == "inductor" else None
        self._compiled = [
            torch.compile(layer.forward, dynamic=True, backend=self.backend, options=options) for layer in self._layers
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, a forward of the model runs what was compiled."""
        with torch.compiler.set_stance("eager_on_recompile"), self._in_place():
            yield

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """Inside, a forward compiles what it needs."""
        own = [vars(layer).get("forward") for layer in self._layers]  # in place of its class's, as hooks are put
        for layer, compiled in zip(self._layers, self._compiled, strict=True):
            layer.forward = compiled
        try:
            yield
        finally:
            for layer, mine in zip(self._layers, own, strict=True):
                del layer.forward
                if mine is not None:
                    layer.forward = mine


@cache
def _compiler() -> str:
    """The C++ compiler that torch takes, in its own words; none where it does not run."""
    try:
        told = subprocess.run([os.environ.get("CXX", "g++"), "--version"], capture_output=True, text=True, timeout=60)
        return told.stdout.partition("\n")[0] or "none"
    except (OSError, subprocess.TimeoutExpired):
        return "none"


def _triton() -> str:
    try:
        return f"triton {version('triton')}"
    except PackageNotFoundError:
        return "none"


def _graphs() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def _batches(model: PreTrainedModel, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One whose texts are all of one length, and one that is padded: they attend in different ways."""
    texts = TEXTS if model.device.type == "cpu" else GPU_TEXTS
    tokens, vocabulary = min(TOKENS, most), int(model.config.get_text_config().vocab_size)
    texts += texts == tokens
    ids = torch.randint(vocabulary, (texts, tokens), generator=torch.Generator().manual_seed(0))
    sizes = tokens - torch.arange(texts) % max(1, tokens // 2)
    for mask in (torch.ones_like(ids), (torch.arange(tokens) < sizes[:, None]).long()):
        yield (ids * mask).to(model.device), mask.to(model.device)
