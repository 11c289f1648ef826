"""Reduce MLP activations to statistics while a model runs. The recorder uses it over a corpus, the engine in prefill.

The beginning-of-text token is left out (``valid_tokens``): as an attention sink it has activations tens of times those
of any word and says nothing about the text.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PreTrainedModel

from coreinfer.mlp import Mlp, down_rows
from coreinfer.models import bos_of, decoder_of, find_mlps
from coreinfer.settings import HELD, StatisticSettings
from coreinfer.statistic import column_energy, finish, reduce_layers, reduce_texts
from coreinfer.turns import alone


def valid_tokens(input_ids: Tensor, attention_mask: Tensor | None, bos: int | None) -> Tensor:
    """Which tokens count, bool (B, T): neither padding nor, where a text has any other token, beginning-of-text."""
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    words = real & (input_ids != bos) if bos is not None else real
    return torch.where(words.any(1, keepdim=True), words, real)


def column_energies(mlps: Sequence[Mlp]) -> Tensor:
    """The squared norm of every neuron's down column, float32 (L, F)."""
    return torch.stack([column_energy(down_rows(mlp).detach()) for mlp in mlps])


class _Reached(Exception):
    """The last MLP's activations are there: what the model would still do is not wanted."""


class Reducer:
    """Hooks on every down projection that reduce what passes, between ``expect`` and ``shares``, to a statistic.

    ``apart``: what they do is not compiled with a model that is.
    """

    def __init__(self, mlps: list[Mlp], settings: StatisticSettings, apart: bool = False) -> None:
        self.mlps, self.settings, self._apart = mlps, settings, apart
        self.columns = column_energies(mlps)
        self._sums: list[Tensor | None] = [None] * len(mlps)
        self._valid: Tensor | None = None
        self._stops = False
        self._waiting: list[tuple[int, Tensor]] = []
        self._hooks: list[Any] = []

    def attach(self) -> None:
        """Hook the model; nothing is reduced yet."""
        self._hooks = [mlp.down.register_forward_pre_hook(self._hook(i)) for i, mlp in enumerate(self.mlps)]

    def detach(self) -> None:
        """Leave the model as it was."""
        for hook in self._hooks:
            hook.remove()
        self._hooks, self._valid, self._waiting = [], None, []

    def expect(self, valid: Tensor) -> None:
        """Announce the next forward's texts: ``valid`` bool (B, T) says which of its tokens count."""
        self._valid, self._waiting = valid, []
        self._sums = [None] * len(self.mlps)

    @contextmanager
    def watching(self, valid: Tensor) -> Iterator[None]:
        """Hooked for one forward of texts whose tokens ``valid`` (B, T) count; ``shares()`` before it is left."""
        self.attach()
        try:
            self.expect(valid)
            yield
        finally:
            self.detach()

    def _hook(self, layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def reduce(module: nn.Module, args: tuple[Any, ...]) -> None:
            if self._valid is not None:
                self._take(layer, args[0])
                if self._stops and layer == len(self.mlps) - 1:
                    raise _Reached

        return torch.compiler.disable(reduce) if self._apart else reduce  # type: ignore[no-untyped-call]

    def _take(self, layer: int, a: Tensor) -> None:
        """A GPU's activations wait until they are HELD bytes: a launch for each layer would cost more than its work."""
        if self._waiting and not _alike(a, self._waiting[0][1]):
            self._reduce()
        self._waiting.append((layer, a))
        if not a.is_cuda or len(self._waiting) * a.nbytes >= HELD:
            self._reduce()

    def _reduce(self) -> None:
        if self._waiting and self._valid is not None:  # OPT hands over (B * T, F)
            layers = [a.detach().reshape(*self._valid.shape, -1) for _, a in self._waiting]
            for (number, _), made in zip(self._waiting, self._reduced(layers, self._valid), strict=True):
                self._sums[number] = made
        self._waiting = []

    def _reduced(self, layers: list[Tensor], valid: Tensor) -> Sequence[Tensor] | Tensor:
        if layers[0].is_cuda or not self._stops:  # a prompt is reduced sooner than the loops are loaded
            return reduce_layers(layers, valid, self.settings)
        starts = np.arange(len(valid) + 1) * valid.shape[1]
        return [reduce_texts(a.flatten(0, 1), valid.flatten(), starts, self.settings) for a in layers]

    def shares_of(self, forward: Callable[[], Any]) -> NDArray[np.float64]:
        """``shares()`` of an announced ``forward``, which ends at the last MLP's activations: its down projection, and
        what comes after it, add nothing to them. Activations that are no finite numbers make their layer's NaN.
        """
        self._stops = True
        try:
            with suppress(_Reached):
                forward()
            return self._made(lenient=False)
        finally:
            self._stops = False

    def shares(self) -> NDArray[np.float64]:
        """The statistic of each text of the last forward, normalised to sum 1 in each layer: (B, L, F). A layer without
        any activity, or with activations that are no finite numbers, is uniform, so that it ranks nothing.

        What runs next is not reduced until it is announced.
        """
        return self._made(lenient=True)

    @torch.no_grad()
    def _made(self, lenient: bool) -> NDArray[np.float64]:
        assert self._valid is not None, "no forward was announced"
        self._reduce()
        sums = torch.stack([s for s in self._sums if s is not None], dim=1)
        assert sums.shape[1] == len(self.mlps), "a layer did not run"
        out = _shares(finish(sums, self._valid.sum(1), self.columns, self.settings), lenient)
        self._valid = None
        return out


def _shares(statistic: Tensor, lenient: bool) -> NDArray[np.float64]:
    """``neurons.share``, where the statistic is, and on all threads; what is no finite number is uniform or NaN."""
    total = statistic.sum(-1, keepdim=True, dtype=torch.float64)
    uniform = 1.0 / statistic.shape[-1]
    silent = (total == 0) | ~total.isfinite() if lenient else total == 0
    made = torch.where(silent, uniform, statistic / total)
    if made.is_cuda:  # a copy to memory that is not pinned takes several times as long
        made = torch.empty_like(made, device="cpu", pin_memory=True).copy_(made)
    found: NDArray[np.float64] = made.numpy()
    return found


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether both can be reduced together."""
    return a.shape == b.shape and a.dtype == b.dtype and a.device == b.device


def prompt_shares(model: PreTrainedModel, settings: StatisticSettings, ids: Tensor) -> tuple[NDArray[np.float64], int]:
    """Run a prompt (1, P) dense -> its statistic as shares (L, F), and how many tokens counted.

    Raises:
        CoreInferError: a slim context or another Capture is open on the model.
    """
    valid = valid_tokens(ids, None, bos_of(model))
    with Capture(model, settings, ends=True) as capture, torch.inference_mode():
        capture.expect(valid)
        model.base_model(input_ids=ids, use_cache=False)
        return capture.shares()[0], int(valid.sum())


class Capture(Reducer):
    """Context manager: after each forward, ``shares()`` is the normalised statistic of each text of the batch.

    ``with Capture(model, settings) as capture: capture.expect(valid); model(ids); capture.shares()``

    ``ends``: whether the context is left without a caller's doing, so that others may wait for it. ``apart``: see
    ``Reducer``.

    Raises:
        CoreInferError: a slim context or another Capture is open on the model.
    """

    def __init__(
        self, model: PreTrainedModel, settings: StatisticSettings, mlps: list[Mlp] | None = None, ends: bool = False,
        apart: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(mlps or find_mlps(model), settings, apart)
        self._decoder, self._ends = decoder_of(model), ends

    def __enter__(self) -> "Capture":
        self._turn = alone(self._decoder, "Capture", self._ends)
        self._turn.__enter__()
        self.attach()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()
        self._turn.__exit__(kind, error, trace)
