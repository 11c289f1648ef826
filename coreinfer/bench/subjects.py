"""Ways to decode, each behind one method: ``decode`` makes so many tokens after a prompt and says how long it took.

Peers run as their users run them. What a peer cannot do on this machine is left out, with the reason.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel, StaticCache

from coreinfer.bench.limits import wait
from coreinfer.decode.decoder import Decoder
from coreinfer.errors import CoreInferError, in_words
from coreinfer.neurons import NeuronSet, top, uniform_budgets
from coreinfer.slimming import slim

COMPILED = "transformers, static cache, torch.compile"
Decode = Callable[[int], float]  # so many tokens -> seconds


@dataclass(frozen=True)
class Subject:
    """A way to decode: ``keep`` is the share of MLP neurons that it reads, ``texts`` how many it makes at a time."""

    name: str
    keep: float
    decode: Decode
    texts: int = 1


def random_set(layers: int, width: int, keep: float, seed: int = 0) -> NeuronSet:
    """Uniform budgets; which neurons it is does not matter to speed."""
    return top(np.random.default_rng(seed).random((layers, width)), uniform_budgets(keep, layers, width))


class Own:
    """The project's own steps after one prefill."""

    def __init__(self, model: PreTrainedModel, ids: Tensor, context: int) -> None:
        self.device, self.ids = str(model.device), ids
        self.decoder = Decoder(model, context)
        with torch.inference_mode():
            out = cast(Any, model)(input_ids=ids, use_cache=True, logits_to_keep=1)
        self.cache, self.first = out.past_key_values, int(out.logits[0, -1].argmax())

    def set_of(self, keep: float, seed: int = 0) -> NeuronSet:
        net = self.decoder.network
        return random_set(len(net.layers), net.width, keep, seed)

    def subject(self, keep: float) -> Subject:
        neurons = self.set_of(keep)

        def decode(count: int) -> float:
            with self.decoder.here():
                self.decoder.begin(self.ids, self.cache, self.first)
                self.decoder.keep(neurons)
                wait(self.device)
                begun = time.perf_counter()
                for _ in self.decoder.tokens(count):
                    pass
                return time.perf_counter() - begun

        return Subject("coreinfer", keep, decode)

    def batch(self, keep: float, texts: int) -> Subject:
        """So many texts at a time, on one set."""
        neurons = self.set_of(keep)
        self.decoder.make_room(self.decoder.context, texts)

        def decode(count: int) -> float:
            with self.decoder.here():
                self.decoder.keep(neurons, texts)
                for slot in range(texts):
                    self.decoder.begin(self.ids, self.cache, self.first, slot)
                wait(self.device)
                begun = time.perf_counter()
                for _ in zip(range(count), self.decoder.rounds(), strict=False):
                    pass
                return time.perf_counter() - begun

        return Subject("coreinfer", keep, decode, texts)


def transformers_eager(model: PreTrainedModel, ids: Tensor, neurons: NeuronSet | None, keep: float) -> Subject:
    """``generate`` as it comes; sliced by ``slim`` where a set is given."""

    def tokens(count: int) -> float:
        """Seconds between the first token and the last."""
        clock = _Ticks()
        cast(Any, model).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=count + 1, min_new_tokens=count + 1,
            do_sample=False, streamer=clock, pad_token_id=0,
        )  # fmt: skip
        wait(str(model.device))
        return time.perf_counter() - clock.first

    def decode(count: int) -> float:
        if neurons is None:
            return tokens(count)
        with slim(model, neurons):
            return tokens(count)

    return Subject("transformers", keep, decode)


def transformers_compiled(model: PreTrainedModel, ids: Tensor, context: int) -> Subject:
    """A static cache and ``torch.compile`` with CUDA graphs, the fastest that Transformers' guide shows; dense."""
    step: Any = torch.compile(cast(Any, model).forward, mode="reduce-overhead", fullgraph=True)
    config = model.config.get_text_config()
    cache = StaticCache(config=config, max_cache_len=context)
    more: dict[str, Any] = {}
    if config.model_type == "opt":  # else it makes a mask as long as what was decoded, which is not compiled
        more["attention_mask"] = torch.ones(1, context, dtype=torch.long, device=ids.device)

    @torch.inference_mode()
    def decode(count: int) -> float:
        cache.reset()  # type: ignore[no-untyped-call]
        token = cast(Any, model)(input_ids=ids, past_key_values=cache, logits_to_keep=1).logits[:, -1:].argmax(-1)
        place = torch.tensor([[ids.shape[1]]], device=ids.device)
        wait(str(ids.device))
        begun = time.perf_counter()
        for _ in range(count):
            logits = step(input_ids=token.clone(), past_key_values=cache, position_ids=place, **more).logits
            token = logits[:, -1:].argmax(-1)
            place = place + 1
        wait(str(ids.device))
        return time.perf_counter() - begun

    return Subject(COMPILED, 1.0, decode)


def does_not_compile(subject: Subject) -> str | None:
    """Why, in words; None if it does, which this first step of it shows."""
    try:
        subject.decode(1)
    except TorchDynamoException as error:  # Inductor's are of that kind too
        return f"not compiled: {in_words(error)}"
    return None


def llama_cpp(
    model: PreTrainedModel, ids: Tensor, neurons: NeuronSet, keep: float, context: int, folder: Path
) -> Subject:
    """llama.cpp on a GGUF file of the same weights, written to ``folder``, on as many threads."""
    from coreinfer.llamacpp.decoder import LlamaDecoder
    from coreinfer.llamacpp.files import Files

    decoder = LlamaDecoder(model, Files(folder), None, context)
    out = cast(Any, model)(input_ids=ids, use_cache=True, logits_to_keep=1)
    cache, first = out.past_key_values, int(out.logits[0, -1].argmax())

    def decode(count: int) -> float:
        decoder.begin(ids, cache, first)
        decoder.keep(neurons)
        begun = time.perf_counter()
        for _ in decoder.tokens(count):
            pass
        return time.perf_counter() - begun

    return Subject("llama.cpp", keep, decode)


def no_llama_cpp(model: PreTrainedModel) -> str | None:
    """Why llama.cpp is left out, in words; None if it is not."""
    from coreinfer.gguf.layouts import unwritable
    from coreinfer.llamacpp.session import library

    if model.device.type != "cpu":
        return "measured on CPUs only"
    if why := unwritable(model):
        return f"it has no graph for {why}"
    try:
        library()
    except CoreInferError as error:
        return str(error)
    return None


class _Ticks:
    """A streamer that knows when the first token came; ``generate`` puts the prompt before it."""

    def __init__(self) -> None:
        self.first, self._seen = 0.0, 0

    def put(self, value: Tensor) -> None:
        self._seen += 1
        if self._seen == 2:
            self.first = time.perf_counter()

    def end(self) -> None:
        """Nothing is left to do."""
