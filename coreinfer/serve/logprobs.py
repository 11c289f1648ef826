"""The log-probabilities of a token and of the likeliest ones in its place, and OpenAI's two forms of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Decode = Callable[[list[int]], str]


@dataclass(frozen=True)
class Chances:
    """Natural logarithms, of the model's own distribution (at temperature 1): a token's, and the likeliest ones'."""

    token: int
    chance: float
    likeliest: list[tuple[int, float]]


def chances(logits: Tensor, token: int, likeliest: int) -> Chances:
    """Of float32 logits (V,)."""
    logs = torch.log_softmax(logits, 0)
    best = logs.topk(min(likeliest, len(logs)))
    return Chances(token, float(logs[token]), list(zip(best.indices.tolist(), best.values.tolist(), strict=True)))


def of_completion(found: Sequence[Chances], decode: Decode, start: int) -> dict[str, Any]:
    """As /v1/completions has them; ``start``: characters of the text before the first token."""
    texts = [decode([one.token]) for one in found]
    offsets = [start + sum(map(len, texts[:number])) for number in range(len(texts))]
    return {
        "tokens": texts,
        "token_logprobs": [one.chance for one in found],
        "top_logprobs": [_by_text(one, decode) for one in found],
        "text_offset": offsets,
    }


def _by_text(one: Chances, decode: Decode) -> dict[str, float]:
    """The likeliest and the token itself; of several with one text, as parts of a character have, the likeliest."""
    out = dict[str, float]()
    for token, chance in (*one.likeliest, (one.token, one.chance)):
        out.setdefault(decode([token]), chance)
    return out


def of_chat(found: Sequence[Chances], decode: Decode) -> dict[str, Any]:
    """As /v1/chat/completions has them."""

    def entry(token: int, chance: float) -> dict[str, Any]:
        text = decode([token])
        whole = "\ufffd" not in text  # what stands for a part of a character
        return {"token": text, "logprob": chance, "bytes": list(text.encode()) if whole else None}

    content = [
        {**entry(one.token, one.chance), "top_logprobs": [entry(*other) for other in one.likeliest]} for one in found
    ]
    return {"content": content, "refusal": None}
