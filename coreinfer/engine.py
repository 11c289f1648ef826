"""The online story in one class: prompt -> match -> neuron set -> decode."""

from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any, cast, get_args

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer.artifact import Artifact
from coreinfer.batches import generate_many
from coreinfer.belonging import check_identity, named_by_artifact
from coreinfer.capture import prompt_shares
from coreinfer.clock import Clock
from coreinfer.decode.continuing import Noise
from coreinfer.decode.lossless import Drafts, together
from coreinfer.embedder import Embedder
from coreinfer.errors import CoreInferError
from coreinfer.generation import Generation, Stopped
from coreinfer.match import Match, make_index, nearest
from coreinfer.models import context_length
from coreinfer.opening import Opening
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.planning import Planned, plan
from coreinfer.policy import Prediction
from coreinfer.progress import Stage, unseen
from coreinfer.prompts import Prompt, encode, words_of
from coreinfer.refresh import Refresh, blocks, check_with_refresh, parse_refresh
from coreinfer.runtime import Runtime, Runtimes
from coreinfer.settings import RUNTIMES, Dtype, Policy, at_least, check_device, check_keep, one_of
from coreinfer.streaming import Stream, check_options, end_tokens


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
        takes more, only the current neurons are resident; all are laid out in the folder ``bundles``, once. On a GPU it
        bounds all that torch allocates in this process.
        """
        one_of("the dtype", dtype, get_args(Dtype))
        check_device(device)
        self.artifact, self._embedder, self.device = artifact, embedder, device
        self._opening = Opening(artifact, model, dtype, device, memory, bundles, stage, lambda: self.embedder.bytes)
        self.model_name = self._opening.name
        self.index = make_index(artifact.centroids)
        self._once, self._made = Lock(), cast(Runtimes | None, None)

    @classmethod
    def load(cls, artifact: str | Path = DEMO_CLUSTERS, **options: Any) -> "Engine":
        """Open an artifact folder; without one, the clusters and the demo language model that ship."""
        return cls(Artifact.load(artifact), **options)

    @classmethod
    def around(cls, artifact: Artifact, model: Any, tokenizer: Any, embedder: Embedder | str | None = None) -> "Engine":
        """Over a model that is loaded; so may the ``embedder`` be. That they are the artifact's, the caller knows."""
        engine = cls(artifact, embedder=None if isinstance(embedder, Embedder) else embedder, device=str(model.device))
        engine._lm = (model, tokenizer)
        if isinstance(embedder, Embedder):
            engine.embedder = embedder
        return engine

    @cached_property
    def embedder(self) -> Embedder:
        with named_by_artifact(self.artifact.root, "embedder", self._embedder):
            made = Embedder(self._embedder or self.artifact.manifest.embedder.id, self.device)
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
        """The nearest clusters of each prompt, which do not depend on the others."""
        vectors = self.embedder.embed_each([words_of(p) for p in prompts])
        return nearest(self.index, vectors, self.artifact.policy.mixture)

    def predict(
        self, prompt: Prompt, policy: Policy = "auto", keep: float | None = None, match: Match | None = None
    ) -> Prediction:
        """Which neurons the prompt needs. Runs the language model's prefill only where the source needs it."""
        planned = self.planned(prompt, policy, keep, match)
        if planned.prediction.neurons is None:
            ids = self.encode(prompt)
            self._opening.check_fits(None, ids.shape[1], ids.shape[1])
            planned.finish(*prompt_shares(self.model, self.artifact.manifest.statistic, ids))
        return planned.prediction

    def generate(
        self,
        prompt: Prompt,
        policy: Policy = "auto",
        keep: float | None = None,
        max_new_tokens: int = 64,
        streamer: Any = None,
        refresh: Refresh = None,
        runtime: Runtime = "auto",
        lossless: bool = False,
        **options: Any,
    ) -> Generation:
        """Continue a prompt: prefill dense, every further token on its neurons. ``options`` go to HF ``generate``.

        ``refresh``: choose the neurons again after so many tokens, or ``auto``: each time that the text has doubled. A
        refresh runs the text so far dense; its time is part of ``decode_s``.
        ``runtime``: coreinfer's own steps, ``transformers``, or ``auto``, which is the former where they know the model
        and the options: greedy, or drawn with ``top_k=0`` and without penalties. ``llama.cpp`` does the same options.
        ``lossless``: the neurons only draft; every token is the one that the dense model would have made. A draft may
        be wrong now and then, so without a ``keep`` it is half of the artifact's.

        Raises:
            CoreInferError: an empty prompt, one that fills the model's context, or options that make several texts, or
                that a refresh would cut.
        """
        at_least("max_new_tokens", max_new_tokens, 1)
        one_of("the runtime", runtime, RUNTIMES)
        options, refresh = check_options(options), parse_refresh(refresh)
        if refresh is not None:
            check_with_refresh(options)
        if lossless:
            self._opening.check_whole("lossless decoding")
            keep = self.artifact.manifest.default_keep / 2 if keep is None else keep
        planned, used, drafts = self.planned(prompt, policy, keep), list[Prediction](), list[Drafts | None]()
        self._opening.check_fits(planned.prediction, 1, max_new_tokens)  # before anything large is loaded
        ids = self.encode(prompt)
        start, room = ids.shape[1], context_length(self.model) - ids.shape[1]
        most = start + min(max_new_tokens, room)
        self._opening.check_fits(planned.prediction, start if refresh is None else most, most)
        clock, ends, noise = Clock(streamer), end_tokens(options, self.model.generation_config), Noise()
        for known, length in blocks(refresh, start, min(max_new_tokens, room)):
            if used:
                so_far = str(self.tokenizer.decode(ids[0], skip_special_tokens=True))
                planned = self.planned(so_far, policy, keep)
            with self._opening.within(planned.prediction, known, known + length, self.runtimes.forget):
                made = self.runtimes.run(
                    runtime, ids, planned.wanted, length, clock, ends.__contains__, options, lossless, noise
                )
            ids = made.ids
            used.append(planned.prediction)
            drafts.append(made.drafts)
            if ids.shape[1] < known + length or int(ids[0, -1]) in ends:
                break
        clock.close()
        new = ids.shape[1] - start
        stopped: Stopped = "length" if new >= max_new_tokens else "context" if new >= room else "eos"
        text = str(self.tokenizer.decode(ids[0, start:], skip_special_tokens=True))
        return Generation(
            text, used[0], start, new, stopped, clock.first_s, clock.rest_s, len(used) - 1, made.runtime,
            together(drafts),
        )  # fmt: skip

    def generate_many(
        self,
        prompts: Sequence[Prompt],
        batch: int = 8,
        policy: Policy = "auto",
        keep: float | None = None,
        max_new_tokens: int = 64,
        **options: Any,
    ) -> Iterator[Generation]:
        """Continue each prompt, in their order, up to ``batch`` of them at a time; up to four batches of prompts are
        prefilled before the first text comes, so that like ones meet.

        Prompts of like neurons decode together, on the union of their sets (``grouping``), which their predictions then
        hold: a step reads its weights once for all of them. Each text is what it would be alone on that union.

        Raises:
            CoreInferError: as ``generate``, or what only Transformers can do.
        """
        at_least("max_new_tokens", max_new_tokens, 1)
        at_least("batch", batch, 1)
        self._opening.check_whole("a batch")
        return generate_many(self, prompts, batch, policy, keep, max_new_tokens, check_options(options))

    @property
    def runtimes(self) -> Runtimes:
        """Who makes the tokens."""
        with self._once:  # two of them would lay the model's weights out twice
            if self._made is None:
                self._made = Runtimes(self.model, self.artifact.manifest.statistic, self._pad, self.tokenizer)
            return self._made

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

    def planned(
        self, prompt: Prompt, policy: Policy = "auto", keep: float | None = None, match: Match | None = None
    ) -> Planned:
        """The prediction as far as it is known before prefill."""
        one_of("the policy", policy, get_args(Policy))
        keep = check_keep(self.artifact.manifest.default_keep if keep is None else keep)
        return plan(self.artifact, match or self.match([prompt])[0], policy, keep)

    @property
    def _pad(self) -> int | None:
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self.tokenizer.eos_token_id
        return pad if isinstance(pad, int) else None
