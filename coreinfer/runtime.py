"""Who makes the tokens: the project's own steps where they can, else Transformers' ``generate`` inside ``slim``."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.clock import Clock
from coreinfer.deciding import Decide
from coreinfer.decode.continuing import Continuing, continuing, sampling_of, shaped_by
from coreinfer.decode.families import unsupported
from coreinfer.errors import CoreInferError
from coreinfer.models import decoder_of
from coreinfer.neurons import NeuronSet
from coreinfer.settings import StatisticSettings
from coreinfer.slimming import slim
from coreinfer.turns import alone

Runtime = Literal["auto", "coreinfer", "transformers"]  # settings.RUNTIMES
ROOM = 1024  # positions of the first cache; longer texts get larger ones


class Runtimes:
    """The ways to continue a prompt on a model; what the steps need is made when they first run."""

    def __init__(self, model: PreTrainedModel, statistic: StatisticSettings, pad: int | None) -> None:
        self.model, self.statistic, self.pad = model, statistic, pad
        self._steps: Continuing | None = None
        self._seen: tuple[tuple[int, int], ...] = ()

    def why_not(self, options: dict[str, Any]) -> str | None:
        """What keeps the project's own steps from serving these options of ``generate``, in words; None if nothing."""
        if sampling_of(options) is None:
            return "options that only Transformers' generate knows"
        if name := shaped_by(self.model, options):
            return f"the {name} of the model's generation_config"
        if self.model.device.type not in ("cpu", "cuda"):
            return f"the device {self.model.device.type!r}"
        if self.model.device.type == "cuda" and not _has_triton():
            return "a missing Triton"
        return unsupported(self.model)

    def run(
        self, wanted: Runtime, ids: Tensor, neurons: NeuronSet | Decide, length: int, clock: Clock,
        ends: Callable[[int], bool], options: dict[str, Any],
    ) -> tuple[Tensor, str]:  # fmt: skip
        """``ids`` and up to ``length`` more tokens, (1, P + n), and who made them.

        Raises:
            CoreInferError: ``wanted`` is coreinfer, and something is in the way.
        """
        if wanted != "transformers":
            with alone(decoder_of(self.model), "Engine.generate", ends=True):
                why = self.why_not(options)
                if why is None:
                    clock.start()
                    own = self._own(ids.shape[1] + length)
                    return own.run(ids, neurons, length, clock.put, ends, sampling_of(options)), "coreinfer"
            if wanted == "coreinfer":
                raise CoreInferError(f"coreinfer's own steps cannot serve {why}: let --runtime be auto")
        return self._transformers(ids, neurons, length, clock, options), "transformers"

    def _own(self, tokens: int) -> Continuing:
        """The steps, made anew if the model's weights are not what they were, with room for so many tokens."""
        if self._steps is None or self._seen != _versions(self.model):
            self._steps = None  # its memory goes first
            self._steps = continuing(self.model, self.statistic, ROOM)
            self._seen = _versions(self.model)
        self._steps.decoder.make_room(tokens)
        return self._steps

    def _transformers(
        self, ids: Tensor, neurons: NeuronSet | Decide, length: int, clock: Clock, options: dict[str, Any]
    ) -> Tensor:
        model: Any = self.model
        with slim(self.model, neurons, statistic=self.statistic, ends=True):
            clock.start()
            made: Tensor = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, streamer=clock,
                pad_token_id=self.pad, **options,
            )  # fmt: skip
        return made


def _versions(model: PreTrainedModel) -> tuple[tuple[int, int], ...]:
    """Where each weight lies and how often it was changed: while this holds, so does what the steps made of them."""
    return tuple((x.data_ptr(), x._version) for x in (*model.parameters(), *model.buffers()))


def _has_triton() -> bool:
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True
