"""Texts -> unit float32 vectors (n, d), by a model of sentence-transformers; packed where that can be (``encoding``).

A text longer than the embedder's window is cut into consecutive windows. Its vector is their weighted mean, each
window weighing half as much as the one after it: what comes next depends most on what was said last. The turns of a
conversation are joined by newlines and treated the same.
"""

from collections.abc import Sequence
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from coreinfer.encoding import packed_encoder
from coreinfer.errors import CoreInferError, in_words
from coreinfer.hub import DEFAULT, embedder_place
from coreinfer.identity import config_facts, digest, plain, tokenizer_facts
from coreinfer.manifest import ModelIdentity
from coreinfer.models import default_dtype, fingerprint

RECENCY = 0.5  # weight of a window relative to the next one


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Renormalise rows in float32: bfloat16 norms are off by up to a percent."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12), np.float32)


class Embedder:
    """A sentence-transformers model by name or path, on one device."""

    def __init__(self, name: str = DEFAULT, device: str = "cpu", dtype: str = "auto") -> None:
        from sentence_transformers import SentenceTransformer

        self.name = name
        kind = default_dtype(device) if dtype == "auto" else getattr(torch, dtype)
        try:
            self.model: Any = SentenceTransformer(
                embedder_place(name), device=device, model_kwargs={"dtype": kind, "use_safetensors": True}
            )
        except CoreInferError:
            raise
        except Exception as error:  # parsers of damaged files raise anything
            raise CoreInferError(
                f"cannot load the embedder {name!r}: {in_words(error)}; give a sentence-transformers name or folder"
            ) from error
        self.dtype = str(kind).removeprefix("torch.")
        self.window = int(self.model.max_seq_length or 512)
        self.dimension = int(self.model.get_embedding_dimension() or 0)
        self._turn = RLock()  # a tokenizer that reads in one thread must not be set in another
        self._packed = packed_encoder(self.model, self.window)

    @property
    def bytes(self) -> int:
        """What its weights take on its device."""
        return sum(p.nbytes for p in self.model.parameters())

    @property
    def encoder(self) -> str:
        """How texts share a forward, which decides the last bits of their vectors: packed or padded."""
        return "padded" if self._packed is None else "packed"

    @property
    def identity(self) -> ModelIdentity:
        """What the manifest stores, and what a later run must equal."""
        return ModelIdentity(self.name, fingerprint(self.model), self.setup, self.dtype, self.window)

    @property
    def setup(self) -> str:
        """The hash of all that decides vectors besides the weights: modules, prompt, window, tokenizer, settings."""
        modules = [_facts(module) for module in self.model]
        inner = next((module.auto_model for module in self.model if hasattr(module, "auto_model")), None)
        config = {} if inner is None else config_facts(inner.config)
        prompt = (self.model.prompts or {}).get(self.model.default_prompt_name) or ""
        return digest(modules, prompt, self.window, config, tokenizer_facts(self.model.tokenizer))

    def windows(self, texts: list[str]) -> list[list[str]]:
        """Cut each text at token boundaries into pieces that fit the embedder's window; tokenized together."""
        room = self.window - self.model.tokenizer.num_special_tokens_to_add()
        out = [[text] for text in texts]
        if long := [i for i, length in enumerate(self.lengths(texts)) if length > room]:
            some = [texts[i] for i in long]
            with self._turn:
                found = self.model.tokenizer(some, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            for i, spans in zip(long, found["offset_mapping"], strict=True):
                out[i] = _cut(texts[i], spans, room)
        return out

    def lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, special ones aside; lists of all ids and places would take several times as long as the
        tokenizer.
        """
        backend = self.model.tokenizer.backend_tokenizer
        with self._turn:
            backend.no_truncation()
            backend.no_padding()
            return [len(found) for found in backend.encode_batch_fast(texts, add_special_tokens=False)]

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit vectors (n, d); long texts as said above. One thread at a time, whoever calls."""
        with self._turn:
            pieces = self.windows(texts)
            flat = [piece for windows in pieces for piece in windows]
            vectors = self._encode(flat)
        if len(flat) == len(texts):
            return vectors
        out, start = np.empty((len(texts), vectors.shape[1]), np.float32), 0
        for i, windows in enumerate(pieces):
            weights = RECENCY ** np.arange(len(windows) - 1, -1, -1, dtype=np.float32)
            out[i] = weights @ vectors[start : start + len(windows)]
            start += len(windows)
        return unit(out)

    def embed_each(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same, one text at a time: no last bit of a vector, and so no neuron of a set, depends on what else is
        asked.
        """
        return np.concatenate([self.embed([text]) for text in texts]) if texts else self.embed([])

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Sorted by length inside, where a batch is padded."""
        if self._packed is not None and texts:
            return unit(self._packed.encode(texts))
        batch = 16 if self.model.device.type == "cpu" else 256  # where each is fastest
        with torch.inference_mode():
            raw = self.model.encode(texts, batch_size=batch, convert_to_tensor=True, show_progress_bar=False)
        return unit(raw.float().cpu().numpy())


def _cut(text: str, spans: list[tuple[int, int]], room: int) -> list[str]:
    """A text in pieces of ``room`` tokens; ``spans`` are its tokens' places."""
    return [text[spans[i][0] : spans[min(i + room, len(spans)) - 1][1]] for i in range(0, len(spans), room)]


def _facts(module: Any) -> list[Any]:
    """What a module of the embedder does with vectors; how its mode is called depends on the library's version."""
    kind = type(module).__name__
    if hasattr(module, "auto_model"):
        return [kind, bool(getattr(module, "do_lower_case", False))]
    if hasattr(module, "pooling_mode") or hasattr(module, "get_pooling_mode_str"):
        return [kind, str(getattr(module, "pooling_mode", None) or module.get_pooling_mode_str())]
    settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return [kind, {name: plain(value) for name, value in settings.items() if not name.endswith("put_name")}]
