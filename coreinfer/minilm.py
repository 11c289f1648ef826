"""The embedder that ships, all-MiniLM-L6-v2, by Transformers alone.

sentence-transformers, which reads every other embedder, takes longer to import than this one to load and to answer. The
modules here are the three that it makes of the same folder, by the same names; a test holds them to its vectors, to the
last bit.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

WINDOW = 256  # tokens, the two at the ends among them


class Transformer(nn.Module):
    """Ids and mask (B, T) -> hidden states (B, T, d) and the mask."""

    do_lower_case = False  # the tokenizer does that

    def __init__(self, folder: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.model: Any = AutoModel.from_pretrained(folder, dtype=dtype, use_safetensors=True)

    @property
    def auto_model(self) -> Any:
        """As sentence-transformers calls it."""
        return self.model

    def forward(self, inputs: Any) -> tuple[Tensor, Tensor]:
        return self.model(**inputs).last_hidden_state, inputs["attention_mask"]


class Pooling(nn.Module):
    """Hidden states (B, T, d) -> their mean over the tokens that are none of the padding, (B, d)."""

    pooling_mode = "mean"

    def forward(self, inputs: tuple[Tensor, Tensor]) -> Tensor:
        states, mask = inputs
        mask = mask.unsqueeze(-1).to(states.dtype)
        total = (states * mask).sum(1, dtype=torch.float32)
        return (total / mask.sum(1, dtype=torch.float32)).to(states.dtype)


class Normalize(nn.Module):
    """Vectors (B, d) of length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return nn.functional.normalize(vectors, p=2, dim=1)


class MiniLM(nn.Sequential):
    """What ``Embedder`` uses of a SentenceTransformer."""

    max_seq_length = WINDOW
    prompts: dict[str, str] = {}  # noqa: RUF012
    default_prompt_name = None

    def __init__(self, folder: str, device: str, dtype: torch.dtype) -> None:
        """
        Raises:
            OSError: it is not there.
        """
        super().__init__(reader := Transformer(folder, dtype), Pooling(), Normalize())
        self.hidden: int = reader.model.config.hidden_size
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, model_max_length=WINDOW)
        self.device = torch.device(device)
        self.to(self.device).eval()

    def get_embedding_dimension(self) -> int:
        return int(self.hidden)

    def encode(self, texts: list[str], batch_size: int, **_: Any) -> Tensor:
        """Vectors (n, d); texts of like length run together."""
        order = np.argsort([-len(text) for text in texts])
        sized = [texts[i] for i in order]
        parts = [self(self._inputs(sized[at : at + batch_size])) for at in range(0, len(sized), batch_size)]
        return torch.cat(parts)[np.argsort(order)] if parts else torch.empty(0)

    def _inputs(self, texts: list[str]) -> Any:
        return self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.device)
