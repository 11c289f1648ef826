"""A decoder's layers, compiled for recording: ``torch.compile`` makes one kernel of what Transformers runs in many,
such as norms, rotations and activation functions.

Whoever records a passage must get the same last bits, so nothing depends on what a process met before: all is compiled
before the first text, for batches that are the same everywhere, with their sizes left open; no kernel is chosen by its
time; and a batch that what was compiled does not fit, such as a single text, runs as if nothing were.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.errors import CoreInferError, in_words
from coreinfer.models import layers_of

# Texts and tokens of the batches that it is compiled for: no two alike, else they would be taken for one size.
TEXTS, GPU_TEXTS, TOKENS = 12, 48, 176
ENOUGH = 50_000  # passages from which on a GPU's build gains more than the ten seconds that compiling takes
APART = 0.05  # most that a text's shares in a layer may differ, of 2: rounding to bfloat16 makes a hundredth of that

Shares = Callable[[Tensor, Tensor], NDArray[np.float64]]


class NotCompiled(CoreInferError):
    """Layers that have to run as they are."""


def wants_compiling(asked: bool | None, device: str, passages: int) -> bool:
    """Whether to, if that was ``asked`` for; where nobody says, whether it pays."""
    return device.startswith("cuda") and passages >= ENOUGH if asked is None else asked


class CompiledLayers:
    """A context manager, inside which a forward of the model runs what was compiled, by torch's ``backend``.

    Raises:
        NotCompiled: the layers are not to be found.
    """

    def __init__(self, model: PreTrainedModel, backend: str = "inductor") -> None:
        self.model, self._layers = model, layers_of(model)
        if len(self._layers) != (count := model.config.get_text_config().num_hidden_layers):
            raise NotCompiled(f"of the model's {count} layers {len(self._layers)} are found")
        options: Any = {"deterministic": True} if backend == "inductor" else None
        self._compiled = [
            torch.compile(layer.forward, dynamic=True, backend=backend, options=options) for layer in self._layers
        ]

    def __enter__(self) -> None:
        self._stance = torch.compiler.set_stance("eager_on_recompile")
        self._stance.__enter__()
        self._put()

    def __exit__(self, *_: object) -> None:
        self._take_out()
        self._stance.__exit__(None, None, None)

    @contextmanager
    def compiling(self) -> Iterator[None]:
        """Inside, a forward compiles what it needs."""
        self._put()
        try:
            yield
        finally:
            self._take_out()

    def _put(self) -> None:
        for layer, compiled in zip(self._layers, self._compiled, strict=True):
            layer.forward = compiled

    def _take_out(self) -> None:
        for layer in self._layers:
            del layer.forward  # the instance's, behind which the class's is


def make_ready(layers: CompiledLayers, shares: Shares, most: int) -> None:
    """Compile, and compare with what is not compiled; ``shares`` (B, L, F) of token ids and their mask (B, T), in texts
    of at most ``most`` tokens.

    Raises:
        NotCompiled: it cannot be, or computes something else.
    """
    batches = list(_batches(layers.model, most))
    wanted = [shares(*batch) for batch in batches]
    try:
        with layers.compiling():
            got = [shares(*batch) for batch in batches]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # of dynamo, inductor, Triton, or the compilers that they call
        why = in_words(getattr(error, "inner_exception", error))  # dynamo's own words are of itself
        raise NotCompiled(f"the model's layers cannot be compiled ({why})") from error
    off = max(float(np.abs(a - b).sum(-1).max()) for a, b in zip(got, wanted, strict=True))
    if not off <= APART:
        raise NotCompiled(f"the model's layers compute something else when they are compiled (off by {off:.3g})")


def _batches(model: PreTrainedModel, most: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One whose texts are all of one length, and one that is padded: they attend in different ways."""
    texts = TEXTS if model.device.type == "cpu" else GPU_TEXTS
    tokens, vocabulary = min(TOKENS, most), int(model.config.get_text_config().vocab_size)
    ids = torch.randint(vocabulary, (texts, tokens), generator=torch.Generator().manual_seed(0))
    sizes = tokens - torch.arange(texts) % max(1, tokens // 2)
    for mask in (torch.ones_like(ids), (torch.arange(tokens) < sizes[:, None]).long()):
        yield (ids * mask).to(model.device), mask.to(model.device)
