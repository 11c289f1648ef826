"""One continuation by the project's own steps: prefill dense, its statistic taken in passing, then token by token."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from coreinfer.capture import Reducer, valid_tokens
from coreinfer.deciding import Decide
from coreinfer.decode.decoder import Decoder
from coreinfer.models import bos_of, decoder_of
from coreinfer.neurons import NeuronSet
from coreinfer.settings import StatisticSettings
from coreinfer.turns import alone

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
NEUTRAL = dict.fromkeys(("typical_p", "repetition_penalty", "encoder_repetition_penalty", "guidance_scale"), 1.0)


@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0; ``seed`` of what is drawn."""

    temperature: float = 0.0
    seed: int = 0


def sampling_of(options: dict[str, Any]) -> Sampling | None:
    """What the options of ``generate`` come to, or None if the steps do not do it. Torch's seed is the drawing's."""
    if all(GREEDY.get(name) == value for name, value in options.items()):
        return Sampling()
    rest = {name: value for name, value in options.items() if name != "temperature"}
    drawn = rest == {name: DRAWN[name] for name in rest if name in DRAWN} and {"do_sample", "top_k"} <= set(rest)
    if not drawn or not rest["do_sample"]:
        return None
    return Sampling(float(options.get("temperature", 1.0)), torch.initial_seed() % (1 << 31))


def shaped_by(model: Any) -> str | None:
    """What in the model's generation_config only Transformers' ``generate`` does, if anything."""
    config = model.generation_config
    values = ((name, getattr(config, name, None)) for name in SHAPING)
    return next((name for name, value in values if value and value != NEUTRAL.get(name)), None)


class Continuing:
    """A model, its decoder and the statistic that a decision in prefill wants."""

    def __init__(self, decoder: Decoder, reducer: Reducer) -> None:
        self.decoder, self.reducer, self.model = decoder, reducer, decoder.model

    def run(
        self, ids: Tensor, neurons: NeuronSet | Decide, length: int, put: Callable[[Tensor], Any],
        ends: Callable[[int], bool], sampling: Sampling,
    ) -> Tensor:  # fmt: skip
        """``ids`` (1, P) and up to ``length`` more tokens (1, P + n); each is ``put`` as it is made, the prompt first.

        A token that ``ends`` is the last. The first is predicted dense, by the prompt's last position.
        """
        put(ids.cpu())
        made = list[int]()
        with alone(decoder_of(self.model), "Engine.generate", ends=True):
            for token in self._tokens(ids, neurons, length, sampling):
                made.append(token)
                put(torch.tensor([token]))
                if ends(token):
                    break
        return torch.cat([ids, ids.new_tensor([made])], 1)

    def _tokens(self, ids: Tensor, neurons: NeuronSet | Decide, length: int, sampling: Sampling) -> Iterator[int]:
        out, kept = self._prefill(ids, neurons)
        first = _pick(out.logits[0, -1].float(), sampling)
        if length == 1:
            yield first
            return
        self.decoder.begin(ids, out.past_key_values, first)
        self.decoder.keep(kept)  # before the first token: what is timed after it is decoding alone
        self.decoder.sample(sampling.temperature, sampling.seed)
        yield from chain([first], self.decoder.tokens(length - 1))

    @torch.inference_mode()
    def _prefill(self, ids: Tensor, neurons: NeuronSet | Decide) -> tuple[Any, NeuronSet]:
        """Transformers' output with its cache, and the set: the given one, or what is decided on the statistic."""
        if isinstance(neurons, NeuronSet):
            return self._forward(ids), neurons
        valid = valid_tokens(ids, None, bos_of(self.model))
        self.reducer.attach()
        try:
            self.reducer.expect(valid)
            out = self._forward(ids)
            return out, neurons(self.reducer.shares()[0], int(valid.sum()))
        finally:
            self.reducer.detach()

    def _forward(self, ids: Tensor) -> Any:
        model: Any = self.model
        return model(input_ids=ids, use_cache=True, logits_to_keep=1)


def continuing(model: Any, statistic: StatisticSettings, room: int) -> Continuing:
    """For a model whose family decodes here (``families.unsupported``), with room for so many tokens."""
    decoder = Decoder(model, room)
    return Continuing(decoder, Reducer(decoder.mlps, statistic))


def _pick(logits: Tensor, sampling: Sampling) -> int:
    if not sampling.temperature:
        return int(logits.argmax())
    noise = torch.Generator().manual_seed(sampling.seed)
    return int(torch.multinomial(torch.softmax(logits.cpu() / sampling.temperature, 0), 1, generator=noise))
