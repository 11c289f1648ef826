"""One continuation, by the project's own steps or others': prefill dense, its statistic taken in passing, then token by
token.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.capture import Reducer, valid_tokens
from coreinfer.deciding import Decide
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.lossless import Drafts, Lossless
from coreinfer.decode.picking import drawn
from coreinfer.launching import launching_on
from coreinfer.mlp import Mlp
from coreinfer.models import bos_of
from coreinfer.neurons import NeuronSet
from coreinfer.settings import StatisticSettings
from coreinfer.threads import enough_for, multiplications_of

# What may be asked for and be done here; anything else is Transformers' (penalties, top-k, stop strings, …).
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
DRAWN = {"do_sample": True, "num_beams": 1, "num_return_sequences": 1, "top_k": 0, "top_p": 1.0}
# What a model's own generation_config may hold that changes tokens, however it is called; and what changes none.
SHAPING = (
    "min_length", "min_new_tokens", "max_time", "stop_strings", "min_p", "top_h", "typical_p", "epsilon_cutoff",
    "eta_cutoff", "repetition_penalty", "encoder_repetition_penalty", "no_repeat_ngram_size", "bad_words_ids",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "token_healing", "guidance_scale",
    "watermarking_config", "penalty_alpha", "dola_layers", "constraints", "force_words_ids",
    "prompt_lookup_num_tokens", "return_dict_in_generate",
)  # fmt: skip
ENDING = ("eos_token_id", "pad_token_id")  # the caller says at which tokens a text ends; one text needs no padding
NEUTRAL = dict.fromkeys(
    ("typical_p", "repetition_penalty", "encoder_repetition_penalty", "guidance_scale", "temperature", "top_p"), 1.0
)


@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0, else drawn from the nucleus ``top_p``."""

    temperature: float = 0.0
    top_p: float = 1.0


class Noise:
    """What one text is drawn with: a seed; where none is given it follows torch's own, and is drawn where it is first
    needed.
    """

    def __init__(self, seed: int | None = None) -> None:
        self._seed = seed

    def seed(self, sampling: Sampling) -> int:
        if not sampling.temperature:
            return 0
        self._seed = int(torch.randint(1 << 31, ())) if self._seed is None else self._seed
        return self._seed


def sampling_of(options: dict[str, Any]) -> Sampling | None:
    """What the options of ``generate`` come to, or None if the steps do not do it: greedy, or drawn from all tokens."""
    rest = {name: value for name, value in options.items() if name not in ("temperature", *ENDING)}
    if any(name not in DRAWN for name in rest):
        return None
    if rest.get("do_sample", False) is False:
        return Sampling() if "temperature" not in options and _equal(rest, GREEDY) else None
    heat = options.get("temperature", 1.0)
    drawn = _equal(rest, DRAWN) and "top_k" in rest and isinstance(heat, int | float) and 0 < heat < float("inf")
    return Sampling(float(heat)) if drawn else None


def unknown(options: dict[str, Any]) -> list[str]:
    """The names that the steps do not know, whatever their values."""
    return [name for name in options if name not in (*DRAWN, *ENDING, "temperature")]


def _equal(some: dict[str, Any], all_of: dict[str, Any]) -> bool:
    """Whether these are plain values, and those."""
    return all(isinstance(x, int | float) and name in all_of and x == all_of[name] for name, x in some.items())


def shaped_by(model: Any, options: dict[str, Any]) -> str | None:
    """What in the model's generation_config only Transformers' ``generate`` does, if anything."""
    config = model.generation_config
    heat = [name for name in ("temperature", "top_p") if options.get("do_sample") and name not in options]
    values = ((name, getattr(config, name, None)) for name in (*SHAPING, *heat))
    return next((name for name, value in values if value and value != NEUTRAL.get(name)), None)


@dataclass
class Begun:
    """A prompt (1, P) after prefill: its cache as Transformers keeps it, the set to go on with, the next token, the
    seed that it was drawn with, and the float32 logits (V,) that it was drawn from.
    """

    ids: Tensor
    cache: Any
    kept: NeuronSet
    first: int
    seed: int = 0
    logits: Tensor | None = None


class Decodes(Protocol):
    """What makes the tokens after a prefill; ``decoder.Decoder`` says what each method does."""

    model: PreTrainedModel
    mlps: list[Mlp]

    def make_room(self, tokens: int) -> None: ...
    def begin(self, ids: Tensor, cache: Any, first: int) -> None: ...
    def keep(self, neurons: NeuronSet) -> None: ...
    def sample(self, temperature: float, seed: int) -> None: ...
    def tokens(self, count: int) -> Iterator[int]: ...


class Continuing:
    """A model, its decoder and the statistic that a decision in prefill wants."""

    def __init__(self, decoder: Decodes, reducer: Reducer) -> None:
        self.decoder, self.reducer, self.model = decoder, reducer, decoder.model
        self._lossless: Lossless | None = None
        self._of_a_token = multiplications_of(self.model.base_model)

    def run(
        self, ids: Tensor, neurons: NeuronSet | Decide, length: int, put: Callable[[Tensor], Any],
        ends: Callable[[int], bool], sampling: Sampling | None, lossless: bool = False,
        noise: Noise | None = None,
    ) -> tuple[Tensor, Drafts | None]:  # fmt: skip
        """``ids`` (1, P) and up to ``length`` more tokens (1, P + n); each is ``put`` as it is made, the prompt first.

        ``lossless``: the neurons draft, the tokens are the dense model's. A token that ``ends`` is the last. The first
        is predicted dense, by the prompt's last position. The caller holds the model for itself (``turns.alone``).
        """
        put(ids.cpu())
        made, self._lossless = list[int](), None
        with launching_on(ids.device):
            for token in self._tokens(ids, neurons, length, sampling or Sampling(), lossless, noise or Noise()):
                made.append(token)
                put(torch.tensor([token]))
                if ends(token):
                    break
        return torch.cat([ids, ids.new_tensor([made])], 1), self._lossless and self._lossless.drafts()

    def _tokens(
        self, ids: Tensor, neurons: NeuronSet | Decide, length: int, sampling: Sampling, lossless: bool, noise: Noise
    ) -> Iterator[int]:
        begun = self.prefill(ids, neurons, sampling, noise)
        first, seed = begun.first, begun.seed
        if length == 1:
            yield first
            return
        self.decoder.begin(ids, begun.cache, first)
        self.decoder.keep(begun.kept)  # before the first token: what is timed after it is decoding alone
        del begun  # its cache was copied
        self.decoder.sample(sampling.temperature, seed)
        yield first
        self._lossless = cast(Decoder, self.decoder).lossless() if lossless else None
        yield from (self._lossless or self.decoder).tokens(length - 1)

    def prefill(self, ids: Tensor, neurons: NeuronSet | Decide, sampling: Sampling, noise: Noise) -> "Begun":
        """Run a prompt dense."""
        seed = noise.seed(sampling)
        out, kept = self._prefill(ids, neurons)
        logits = out.logits[0, -1].float().cpu()
        first = drawn(logits, sampling.temperature, seed, ids.shape[1] - 1, sampling.top_p)
        return Begun(ids, out.past_key_values, kept, first, seed, logits)

    @torch.inference_mode()
    def _prefill(self, ids: Tensor, neurons: NeuronSet | Decide) -> tuple[Any, NeuronSet]:
        """Transformers' output with its cache, and the set: the given one, or what is decided on the statistic."""
        if isinstance(neurons, NeuronSet):
            return self._forward(ids), neurons
        valid = valid_tokens(ids, None, bos_of(self.model))
        with self.reducer.watching(valid):
            out = self._forward(ids)
            return out, neurons(self.reducer.shares()[0], int(valid.sum()))

    def _forward(self, ids: Tensor) -> Any:
        model: Any = self.model
        with nullcontext() if ids.is_cuda else enough_for(ids.shape[1] * self._of_a_token):
            return model(input_ids=ids, use_cache=True, logits_to_keep=1)


def continuing(decoder: Decodes, statistic: StatisticSettings) -> Continuing:
    """With the statistic that a decision may want."""
    return Continuing(decoder, Reducer(decoder.mlps, statistic))
