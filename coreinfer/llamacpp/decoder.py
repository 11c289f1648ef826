"""Decoding by llama.cpp, behind the methods of ``decode.decoder.Decoder``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.caching import REMEDY
from coreinfer.decode.families import read_network
from coreinfer.decode.picking import drawn
from coreinfer.errors import CoreInferError
from coreinfer.gguf.kinds import Kind
from coreinfer.gguf.layouts import layout_of, unwritable
from coreinfer.gguf.writer import write_gguf
from coreinfer.identity import config_facts, digest, tokenizer_facts
from coreinfer.llamacpp.files import Files
from coreinfer.llamacpp.handover import Shape, sequence_state
from coreinfer.llamacpp.session import Session, library
from coreinfer.models import find_mlps, fingerprint
from coreinfer.neurons import NeuronSet

FORMAT = 1  # of the files: another number makes all of them anew


class LlamaDecoder:
    """Decodes one sequence at a time; the last set's file stays loaded.

    Raises:
        CoreInferError: an architecture or activation that llama.cpp does not have, or the extra is missing.
    """

    def __init__(self, model: PreTrainedModel, files: Files, tokenizer: Any, context: int) -> None:
        if why := unwritable(model):
            raise CoreInferError(f"llama.cpp cannot run {why}: choose another --runtime")
        library()
        self.model, self.mlps, self.files, self.tokenizer = model, find_mlps(model), files, tokenizer
        with torch.inference_mode(False):  # weights laid out inside of it could never be trained again
            self.network = read_network(model, bundle=False)
        self.layout, short = layout_of(model), model.dtype is torch.bfloat16
        self.kind: Kind = "bf16" if short else "f32"  # which holds float16 too
        windows = tuple(layer.window for layer in self.network.layers)
        self.reach = self._reach(windows)
        known = windows if self.layout.windows else (None,) * len(windows)
        dtype = torch.float16 if short else torch.float32
        self.shape = Shape(known, self.network.head_dim, self.layout.neighbours, dtype)
        words = None if tokenizer is None else tokenizer_facts(tokenizer)
        self.model_key = digest(FORMAT, fingerprint(model), config_facts(model.config), words)
        self.context = min(context, self.reach)
        self._session: Session | None = None
        self._kept: NeuronSet | None = None
        self._state, self._token, self._at = b"", 0, 0
        self._temperature, self._seed = 0.0, 0

    def _reach(self, windows: tuple[int | None, ...]) -> int:
        """Positions that llama.cpp computes as the model does: where it knows no window, those that none cuts."""
        cut = [] if self.layout.windows else [window for window in windows if window]
        return min([self.network.context, *cut])

    def make_room(self, tokens: int) -> None:
        """
        Raises:
            CoreInferError: more positions than llama.cpp can compute as the model does.
        """
        if tokens > self.reach:
            raise CoreInferError(
                f"prompt and continuation have {tokens} tokens, and llama.cpp's {self.layout.name} attends to all of "
                f"them where this model sees {self.reach}: ask for fewer tokens or choose another --runtime"
            )
        if tokens > self.context:
            self.context = min(self.reach, max(tokens, 2 * self.context))
            self._session = None

    def begin(self, ids: Tensor, cache: Any, first: int) -> None:
        """Take over a prefill: ``ids`` (1, P), its cache as Transformers keeps it, and the token that follows.
        ``keep`` hands it to llama.cpp.
        """
        self._at, self._token = ids.shape[1], first
        caches = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        self._state = sequence_state(caches, self._at, self.shape)

    def keep(self, neurons: NeuronSet) -> None:
        """Run the tokens after ``begin`` on these neurons: their file is written and loaded, unless it was."""
        assert self._state, "begin comes first"
        if self._session is None or self._kept != neurons:
            self._session = None  # its memory goes first
            path = self.files.get(self._key(neurons), lambda path: self._write(path, neurons))
            self._session = Session(path, self.context, self.shape, torch.get_num_threads())
            self._kept = neurons
        self._session.restore(self._state)
        self._state = b""  # llama.cpp has it now

    def _key(self, neurons: NeuronSet) -> str:
        return digest(self.model_key, self.kind, neurons.width, [ids.tolist() for ids in neurons.layers])

    def _write(self, path: Path, neurons: NeuronSet) -> None:
        write_gguf(path, self.model, self.network, neurons, self.kind, self.tokenizer, REMEDY)

    def sample(self, temperature: float, seed: int) -> None:
        """How the next tokens are picked: the likeliest at temperature 0, else drawn."""
        self._temperature, self._seed = temperature, seed

    def tokens(self, count: int) -> Iterator[int]:
        """The next ``count`` tokens, as they are made."""
        for _ in range(count):
            self._token = drawn(self.logits(self._token), self._temperature, self._seed, self._at)
            self._at += 1
            yield self._token

    def logits(self, token: int) -> Tensor:
        """Of the position after ``token``: float32 (V,), which the next call overwrites."""
        assert self._session is not None, "keep comes first"
        return self._session.step(token)
