"""Texts -> vectors by a sentence-transformers model on a CPU, packed: tokenized together, and no padding computed.

It knows models whose modules are a Transformer, its tokens' mean or its first token, and unit length, and whose places
are counted from 0. It is compared with sentence-transformers' own vectors before it is trusted.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import normalize

from coreinfer.packed import Row, packing, together
from coreinfer.separable import TOLERANCE
from coreinfer.threads import enough_for, multiplications_of

TRIAL = ["The tide goes out at noon, and the boats lie on the sand until the evening.", "Why?"]
COSINE = 1e-3  # what a trial's vectors may lack to 1


class PackedEncoder:
    """The modules of ``model``, a SentenceTransformer, for texts of at most ``window`` tokens. One thread at a time
    may use it: the model's attention and tokenizer are set for what is encoded.
    """

    def __init__(self, model: Any, window: int, pooling: str) -> None:
        self.model, self.window, self.pooling = model, window, pooling
        self._of_a_token = multiplications_of(model)

    @torch.inference_mode()
    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """(n, d); of longer texts the first ``window`` tokens."""
        encoded = self._tokens(texts)
        sizes = np.array([len(ids) for ids in encoded])
        parts = [(picked, self._forward([encoded[i] for i in picked])) for picked in together(sizes)]
        out = np.empty((len(texts), parts[0][1].shape[1]), np.float32)
        for picked, vectors in parts:
            out[picked] = vectors.numpy()
        return out

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        backend = self.model.tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        encoded = [found.ids for found in backend.encode_batch_fast(texts)]
        return [ids if len(ids) <= self.window else [*ids[: self.window - 1], ids[-1]] for ids in encoded]

    def _forward(self, texts: list[list[int]]) -> Tensor:
        row, inner = Row.of(texts), self.model[0].auto_model
        with packing(inner), enough_for(row.ids.shape[1] * self._of_a_token):
            tokens: Tensor = inner(**row.inputs())[0][0]
        if self.pooling == "cls":
            return tokens[torch.from_numpy(row.starts[:-1])].float()
        return torch.stack([tokens[begin:end].float().mean(0) for begin, end in pairwise(row.starts.tolist())])


def packed_encoder(model: Any, window: int) -> PackedEncoder | None:
    """Of a SentenceTransformer on a CPU; None where its modules, places or attention are others."""
    kinds = [type(module).__name__ for module in model]
    if model.device.type != "cpu" or kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        return None
    pooling = model[1]
    mode = str(getattr(pooling, "pooling_mode", None) or pooling.get_pooling_mode_str())
    fast = getattr(model.tokenizer, "backend_tokenizer", None) is not None
    if mode not in ("mean", "cls") or not fast or not hasattr(model[0], "auto_model") or _shifted(model[0].auto_model):
        return None
    made = PackedEncoder(model, window, mode)
    return made if _same(made) else None


def _shifted(inner: nn.Module) -> bool:
    """Whether places are counted from behind a padding's, as RoBERTa's are: a few places off, vectors look alike."""
    places = [module for path, module in inner.named_modules() if path.endswith("position_embeddings")]
    return any(getattr(module, "padding_idx", None) is not None for module in places)


def _same(made: PackedEncoder) -> bool:
    """Whether it gives what sentence-transformers gives, with its prompt and all, but for length and rounding."""
    with torch.inference_mode():
        wanted = made.model.encode(TRIAL, convert_to_tensor=True, show_progress_bar=False).float()
    try:
        got = torch.from_numpy(made.encode(TRIAL))
    except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError):  # other shapes or arguments
        return False
    got, wanted = normalize(got), normalize(wanted)
    near = (got - wanted).abs().max() <= TOLERANCE.get(made.model[0].auto_model.dtype, 0.05) * wanted.abs().max()
    return bool(near and ((got * wanted).sum(1) > 1 - COSINE).all())
