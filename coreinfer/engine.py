"""The online story in one class: prompt -> match -> neuron set -> decode."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.belonging import check_identity, named_by_artifact
from coreinfer.capture import Capture, valid_tokens
from coreinfer.clock import Clock
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.generation import Generation, Stopped
from coreinfer.match import Match, make_index, nearest
from coreinfer.models import bos_of, context_length
from coreinfer.neurons import NeuronSet
from coreinfer.opening import Opening
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.policy import Prediction, choose, score
from coreinfer.progress import Stage, unseen
from coreinfer.prompts import Prompt, encode, words_of
from coreinfer.refresh import Refresh, blocks, check_with_refresh, parse_refresh
from coreinfer.runtime import Runtime, Runtimes
from coreinfer.settings import RUNTIMES, Dtype, Policy, at_least, check_device, check_keep, one_of
from coreinfer.streaming import Stream, check_options

Decide = Callable[[NDArray[np.float64] | None, int], Prediction]  # of a prompt's statistic and its number of tokens


class Engine:
    """An artifact, its embedder and its language model; the two models load when first needed."""

    def __init__(
        self,
        artifact: Artifact,
        model: str | None = None,
        embedder: str | None = None,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        memory: str | None = None,
        bundles: str | Path | None = None,
        stage: Stage = unseen,
    ) -> None:
        """``memory``: what weights, caches and activations may take on the device, such as "12GiB". Of a model that
        takes more, only the current neurons are resident; all are laid out in the folder ``bundles``, once.
        """
        one_of("the dtype", dtype, get_args(Dtype))
        check_device(device)
        self.artifact = artifact
        self._embedder, self._device = embedder, device
        self._opening = Opening(artifact, model, dtype, device, memory, bundles, stage, lambda: self.embedder.bytes)
        self.index = make_index(artifact.centroids)
        self._once, self._made = Lock(), cast(Runtimes | None, None)

    @classmethod
    def load(cls, artifact: str | Path = DEMO_CLUSTERS, **options: Any) -> "Engine":
        """Open an artifact folder; without one, the clusters and the demo language model that ship."""
        return cls(Artifact.load(artifact), **options)

    @cached_property
    def embedder(self) -> Embedder:
        with named_by_artifact(self.artifact.root, "embedder", self._embedder):
            made = Embedder(self._embedder or self.artifact.manifest.embedder.id, self._device)
        check_identity("embedder", made.identity, self.artifact.manifest.embedder)
        return made

    @cached_property
    def _lm(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self._opening.load()

    @property
    def model(self) -> PreTrainedModel:
        return self._lm[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._opening.early_tokenizer or self._lm[1]

    def match(self, prompts: Sequence[Prompt]) -> list[Match]:
        """The nearest clusters of each prompt; embeds all of them in batches."""
        vectors = self.embedder.embed([words_of(p) for p in prompts])
        return nearest(self.index, vectors, self.artifact.policy.mixture)

    def predict(
        self, prompt: Prompt, policy: Policy = "auto", keep: float | None = None, match: Match | None = None
    ) -> Prediction:
        """Which neurons the prompt needs. Runs the language model's prefill only where the source needs it."""
        prediction, decide = self._plan(prompt, policy, keep, match)
        if prediction.neurons is not None:
            return prediction
        ids = self.encode(prompt)
        self._opening.check_fits(None, ids.shape[1], ids.shape[1])
        valid = valid_tokens(ids, None, bos_of(self.model))
        statistic = self.artifact.manifest.statistic
        with Capture(self.model, statistic, ends=True) as capture, torch.inference_mode():
            capture.expect(valid)
            self.model.base_model(input_ids=ids, use_cache=False)
            shares = capture.shares()[0]
        return decide(shares, int(valid.sum()))

    def generate(
        self,
        prompt: Prompt,
        policy: Policy = "auto",
        keep: float | None = None,
        max_new_tokens: int = 64,
        streamer: Any = None,
        refresh: Refresh = None,
        runtime: Runtime = "auto",
        **options: Any,
    ) -> Generation:
        """Continue a prompt: prefill dense, every further token on its neurons. ``options`` go to HF ``generate``.

        ``refresh``: choose the neurons again after so many tokens, or ``auto``: each time that the text has doubled. A
        refresh runs the text so far dense; its time is part of ``decode_s``.
        ``runtime``: coreinfer's own steps, ``transformers``, or ``auto``, which is the former where they know the model
        and the options: greedy, or drawn with ``top_k=0`` and without penalties.

        Raises:
            CoreInferError: an empty prompt, one that fills the model's context, or options that make several texts, or
                that a refresh would cut.
        """
        at_least("max_new_tokens", max_new_tokens, 1)
        one_of("the runtime", runtime, RUNTIMES)
        options, refresh = check_options(options), parse_refresh(refresh)
        if refresh is not None:
            check_with_refresh(options)
        plan, used = self._plan(prompt, policy, keep, None), list[Prediction]()
        self._opening.check_fits(plan[0], 1, max_new_tokens)  # before anything large is loaded
        ids = self.encode(prompt)
        start, room = ids.shape[1], context_length(self.model) - ids.shape[1]
        most = start + min(max_new_tokens, room)
        self._opening.check_fits(plan[0], start if refresh is None else most, most)
        clock = Clock(streamer)
        for known, length in blocks(refresh, start, min(max_new_tokens, room)):
            if used:
                so_far = str(self.tokenizer.decode(ids[0], skip_special_tokens=True))
                plan = self._plan(so_far, policy, keep, None)
            ids, prediction, maker = self._part(ids, plan, length, clock, runtime, options)
            used.append(prediction)
            if ids.shape[1] < known + length or self._is_end(int(ids[0, -1])):
                break
        clock.close()
        made = ids.shape[1] - start
        stopped: Stopped = "length" if made >= max_new_tokens else "context" if made >= room else "eos"
        text = str(self.tokenizer.decode(ids[0, start:], skip_special_tokens=True))
        return Generation(text, used[0], start, made, stopped, clock.first_s, clock.rest_s, len(used) - 1, maker)

    def _part(
        self, ids: torch.Tensor, plan: tuple[Prediction, Decide], length: int, clock: Clock, runtime: Runtime,
        options: dict[str, Any],
    ) -> tuple[torch.Tensor, Prediction, str]:  # fmt: skip
        """Up to ``length`` more tokens on one set: all ids, the prediction with that set, and which runtime it was."""
        prediction, decide = plan
        chosen = [prediction]

        def once(shares: NDArray[np.float64], tokens: int) -> NeuronSet:
            chosen.append(decide(shares, tokens))
            assert chosen[-1].neurons is not None
            return chosen[-1].neurons

        neurons = prediction.neurons or once
        runtimes, known = self._runtimes, ids.shape[1]
        with self._opening.within(prediction, known, known + length, runtimes.forget):
            out, maker = runtimes.run(runtime, ids, neurons, length, clock, self._is_end, options)
        return out, chosen[-1], maker

    @property
    def _runtimes(self) -> Runtimes:
        with self._once:  # two of them would lay the model's weights out twice
            if self._made is None:
                self._made = Runtimes(self.model, self.artifact.manifest.statistic, self._pad)
            return self._made

    def _is_end(self, token: int) -> bool:
        """Whether ``generate`` stops at a token."""
        ends: Any = self.model.generation_config.eos_token_id
        return ends is not None and token in torch.as_tensor(ends).flatten().tolist()

    def stream(self, prompt: Prompt, **options: Any) -> Generator[str | Generation, None, None]:
        """Pieces of text as they are made, and last the ``Generation``. Closing the iterator ends the generation."""
        streamer = Stream(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        result: list[Generation | BaseException] = []

        def work() -> None:
            try:
                result.append(self.generate(prompt, streamer=streamer, **options))
            except BaseException as error:
                result.append(error)
                streamer.on_finalized_text("", stream_end=True)

        thread = Thread(target=work, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            streamer.reader_gone = True
            thread.join()
        if isinstance(result[0], BaseException):
            raise result[0]
        yield result[0]

    def encode(self, prompt: Prompt) -> torch.Tensor:
        """Token ids (1, P) of a prompt; turns through the tokenizer's chat template, or as `User: … Assistant:`."""
        ids = encode(self.tokenizer, prompt)
        if len(ids) >= (most := context_length(self.model)):
            raise CoreInferError(f"the prompt has {len(ids)} tokens, the model's context holds {most}: shorten it")
        known = cast(Any, self.model.get_input_embeddings()).weight.shape[0]
        if odd := [token for token in ids if token >= known]:
            word = self.tokenizer.convert_ids_to_tokens(odd[0])
            raise CoreInferError(f"the prompt holds {word!r}, a token that the model does not know: leave it out")
        return torch.tensor([ids], device=self.model.device)

    def _plan(
        self, prompt: Prompt, policy: Policy, keep: float | None, match: Match | None
    ) -> tuple[Prediction, Decide]:
        """The prediction as far as it is known before prefill, and the function that finishes it."""
        one_of("the policy", policy, get_args(Policy))
        artifact = self.artifact
        keep = check_keep(artifact.manifest.default_keep if keep is None else keep)
        match = match or self.match([prompt])[0]
        source, reason = choose(match, policy, artifact.policy)
        keep = 1.0 if source == "dense" else keep
        needs_prior = source in ("similarity", "hybrid")
        prior = artifact.prior_of(match.clusters, match.similarities) if needs_prior else None

        made = Prediction(policy, source, match.cluster, match.similarity, artifact.policy.threshold, reason, keep)

        def decide(shares: NDArray[np.float64] | None, tokens: int) -> Prediction:
            worth = artifact.worth(source, match.similarity, prior, shares, tokens)
            neurons = artifact.core(score(source, prior, shares, tokens, worth), keep)
            doubted = source == "hybrid" and worth < artifact.policy.n0_at(match.similarity) / 2
            but = "; but the prompt's own neurons are others, so it counts less" if doubted else ""
            return replace(made, neurons=neurons, worth=worth, reason=reason + but)

        if source == "dense":
            return replace(made, neurons=self._all()), decide
        return decide(None, 0) if source == "similarity" else made, decide

    def _all(self) -> NeuronSet:
        every = np.arange(self.artifact.manifest.width, dtype=np.int32)
        return NeuronSet((every,) * self.artifact.manifest.layers, self.artifact.manifest.width)

    @property
    def _pad(self) -> int | None:
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        return pad if isinstance(pad, int) else None
