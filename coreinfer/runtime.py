"""Who makes the tokens: the project's own steps where they can, else Transformers' ``generate`` inside ``slim``; where
it is asked for, llama.cpp.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.caching import cache_folder
from coreinfer.clock import Clock
from coreinfer.deciding import Decide
from coreinfer.decode.compiling import NotCompiled
from coreinfer.decode.continuing import Continuing, Decodes, Noise, continuing, sampling_of, shaped_by, unknown
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import reach, unsupported
from coreinfer.decode.lossless import Drafts
from coreinfer.errors import CoreInferError, in_words
from coreinfer.gguf.layouts import unwritable
from coreinfer.memory.linear import is_streamed
from coreinfer.memory.plan import ROOM
from coreinfer.models import decoder_of
from coreinfer.neurons import NeuronSet
from coreinfer.quantised.linear import bits_of
from coreinfer.settings import StatisticSettings
from coreinfer.slimming import slim
from coreinfer.turns import alone
from coreinfer.wording import counted

log = logging.getLogger(__name__)
Runtime = Literal["auto", "coreinfer", "transformers", "llama.cpp"]  # settings.RUNTIMES
WHO = {"coreinfer": "coreinfer's own steps", "llama.cpp": "llama.cpp"}


@dataclass(frozen=True)
class Made:
    """All ids (1, P + n), which runtime made the last n, and what came of drafts where they were made lossless."""

    ids: Tensor
    runtime: str
    drafts: Drafts | None = None


class Runtimes:
    """The ways to continue a prompt on a model; what one needs is made when it first runs.

    ``tokenizer``: for the files that llama.cpp reads, so that other programs can use them too.
    """

    def __init__(
        self, model: PreTrainedModel, statistic: StatisticSettings, pad: int | None, tokenizer: Any = None
    ) -> None:
        self.model, self.statistic, self.pad, self.tokenizer = model, statistic, pad, tokenizer
        self._made = dict[str, Continuing]()
        self._seen: tuple[tuple[int, int], ...] = ()
        self._fault: str | None = None  # of kernels that were tried

    def why_not(self, options: dict[str, Any], name: str = "coreinfer") -> str | None:
        """What keeps the project's own steps, or llama.cpp, from serving these options of ``generate``, in words; None
        if nothing.
        """
        if sampling_of(options) is None:
            named = ", ".join(unknown(options))
            return "options that only Transformers' generate knows" + (f" ({named})" if named else "")
        if shaping := shaped_by(self.model, options):
            return f"the {shaping} of the model's generation_config"
        device = self.model.device.type
        if device not in ("cpu", "cuda") or (name == "llama.cpp" and device != "cpu"):
            return f"the device {device!r}"
        if device == "cuda" and not _has_triton():
            return "a missing Triton"
        if name == "llama.cpp":
            if bits_of(self.model) is not None:
                return "quantised weights"
            return "a model under a memory budget" if is_streamed(self.model) else unwritable(self.model)
        return self._fault or unsupported(self.model)

    def run(
        self, wanted: Runtime, ids: Tensor, neurons: NeuronSet | Decide, length: int, clock: Clock,
        ends: Callable[[int], bool], options: dict[str, Any], lossless: bool = False, noise: Noise | None = None,
    ) -> Made:  # fmt: skip
        """``ids`` and up to ``length`` more tokens, and who made them. ``noise``: of the parts of one text.

        Raises:
            CoreInferError: ``wanted`` is coreinfer or llama.cpp, or they are to be ``lossless``, and something is in
                the way.
        """
        if lossless and wanted in ("transformers", "llama.cpp"):
            raise CoreInferError("lossless is coreinfer's own way to decode: let --runtime be auto")
        if wanted != "transformers":
            name = "coreinfer" if wanted == "auto" else wanted
            with alone(decoder_of(self.model), "Engine.generate", ends=True):
                tokens = ids.shape[1] + length
                why = self.why_not(options, name)
                if why is None and name == "coreinfer" and tokens > (most := reach(self.model)):
                    why = f"{tokens} tokens, of which they hold {most}"
                if why is None:
                    clock.start()
                    try:
                        made = self._continuing(name, tokens)
                        sampling = sampling_of(options)
                        out, drafts = made.run(ids, neurons, length, clock.put, ends, sampling, lossless, noise)
                        return Made(out, name, drafts)
                    except NotCompiled as error:  # before the first token
                        self._made.pop(name, None)
                        self._fault = why = error.why
                        if wanted == "auto" and not lossless:
                            log.warning("coreinfer's own steps cannot serve %s: Transformers makes the tokens", why)
            if wanted == name or lossless:
                instead = "leave out --lossless" if lossless else "let --runtime be auto"
                raise CoreInferError(f"{WHO[name]} cannot serve {why}: {instead}")
        return Made(self._transformers(ids, neurons, length, clock, options), "transformers")

    def forget(self) -> None:
        """Let what the steps made leave memory; the next to run make it again."""
        self._made.clear()

    def several(self, tokens: int, texts: int) -> tuple[Continuing, Decoder]:
        """The project's own steps, with room for so many texts of so many tokens."""
        made = self._continuing("coreinfer", tokens, texts)
        return made, cast(Decoder, made.decoder)

    def _continuing(self, name: str, tokens: int, texts: int = 1) -> Continuing:
        """Made anew if the model's weights are not what they were, with room for so many tokens."""
        if self._seen != _versions(self.model):
            self.forget()  # its memory goes first
        if name not in self._made:
            self._made[name] = continuing(self._decoder(name), self.statistic)
            self._seen = _versions(self.model)
        made = self._made.pop(name)  # so that one whose room fails is not kept
        try:
            made.decoder.make_room(tokens) if texts == 1 else cast(Decoder, made.decoder).make_room(tokens, texts)
        except (RuntimeError, MemoryError) as error:  # torch's OutOfMemoryError is one
            raise CoreInferError(
                f"there is no memory for the caches of {counted(texts, 'text')} of {tokens} tokens "
                f"({in_words(error)}): decode fewer at a time, or shorter ones"
            ) from error
        self._made[name] = made
        return made

    def _decoder(self, name: str) -> Decodes:
        if name == "coreinfer":
            return Decoder(self.model, ROOM)
        from coreinfer.llamacpp.decoder import LlamaDecoder
        from coreinfer.llamacpp.files import Files

        return LlamaDecoder(self.model, Files(cache_folder("gguf")), self.tokenizer, ROOM)

    def _transformers(
        self, ids: Tensor, neurons: NeuronSet | Decide, length: int, clock: Clock, options: dict[str, Any]
    ) -> Tensor:
        model: Any = self.model
        if is_streamed(model):
            self.forget()  # under a memory budget one set's neurons are resident, not two
        with slim(self.model, neurons, statistic=self.statistic, ends=True):
            clock.start()
            made: Tensor = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, streamer=clock,
                **{"pad_token_id": self.pad, **options},
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
