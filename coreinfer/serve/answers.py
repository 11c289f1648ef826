"""Answers in OpenAI's form, and what they say beside it."""

import json
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coreinfer.policy import Prediction
from coreinfer.serve.jobs import Ended, Wish
from coreinfer.serve.logprobs import Chances, Decode, of_chat, of_completion
from coreinfer.serve.metrics import fallback

encoded = json.JSONEncoder(ensure_ascii=False).encode
FINISH = {"eos": "stop", "stop": "stop", "length": "length", "context": "length", "time": "length"}


def predicted(prediction: Prediction, wish: Wish, number: int) -> dict[str, Any]:
    """Which neurons a text runs on, and why; ``number``: among its request's texts."""
    kept = prediction.neurons
    return {
        "policy": prediction.policy, "source": prediction.source, "cluster": prediction.cluster,
        "similarity": round(prediction.similarity, 6), "threshold": prediction.threshold, "reason": prediction.reason,
        "fallback": fallback(prediction), "keep": prediction.keep, "neurons": sum(kept.per_layer) if kept else None,
        "lossless": wish.lossless, "seed": wish.seed_of(number),
    }  # fmt: skip


def measured(ended: Ended) -> dict[str, Any]:
    """How a text was made."""
    rate = (ended.tokens - 1) / ended.decode_s if ended.tokens > 1 and ended.decode_s > 0 else None
    return {
        "queue_s": round(ended.queue_s, 4), "first_token_s": round(ended.first_token_s, 4),
        "tokens_per_second": rate and round(rate, 2), "stopped": ended.stopped,
    }  # fmt: skip


def usage(prompt: int, new: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": new, "total_tokens": prompt + new}


def said_in_headers(prediction: Prediction, digest: str) -> dict[str, str]:
    """Of a request's first prompt."""
    return {
        "X-Coreinfer-Artifact": digest, "X-Coreinfer-Policy": prediction.policy,
        "X-Coreinfer-Source": prediction.source, "X-Coreinfer-Cluster": str(prediction.cluster),
        "X-Coreinfer-Similarity": f"{prediction.similarity:.6f}",
        "X-Coreinfer-Threshold": f"{prediction.threshold:.6f}", "X-Coreinfer-Keep": f"{prediction.keep:g}",
    }  # fmt: skip


@dataclass(frozen=True)
class Form:
    """How one request's answers look; ``decode`` is of its model's tokenizer."""

    chat: bool
    model: str
    decode: Decode
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, choices: list[dict[str, Any]], used: dict[str, int], digest: str) -> dict[str, Any]:
        return {**self._head("chat.completion", digest), "choices": choices, "usage": used}

    def around(self, digest: str, with_usage: bool) -> tuple[str, str]:
        """What a stream's chunks have in common, in JSON: all before their choices, and after."""
        head = encoded(self._head("chat.completion.chunk", digest))
        return f'{head[:-1]}, "choices": [', '], "usage": null}' if with_usage else "]}"

    def _head(self, kind: str, digest: str) -> dict[str, Any]:
        name, kind = ("chatcmpl", kind) if self.chat else ("cmpl", "text_completion")
        head = {"id": f"{name}-{self.id}", "object": kind, "created": self.created, "model": self.model}
        return {**head, "system_fingerprint": digest}

    def choice(self, number: int, text: str, found: Sequence[Chances], why: str, core: dict[str, Any]) -> Any:
        """A whole text."""
        said = {"message": {"role": "assistant", "content": text, "refusal": None}} if self.chat else {"text": text}
        return {
            "index": number, **said, "logprobs": self._logprobs(found, 0), "finish_reason": FINISH[why],
            "coreinfer": core,
        }  # fmt: skip

    def delta(self, number: int, text: str, found: Sequence[Chances] = (), at: int = 0, first: bool = False) -> Any:
        """A piece of one; ``at``: characters before it."""
        said: dict[str, Any] = {"text": text}
        if self.chat:
            said = {"delta": {"role": "assistant", "content": text} if first else {"content": text}}
        return {"index": number, **said, "logprobs": self._logprobs(found, at), "finish_reason": None}

    def last(self, number: int, why: str, core: dict[str, Any]) -> Any:
        said: dict[str, Any] = {"delta": {}} if self.chat else {"text": ""}
        return {"index": number, **said, "logprobs": None, "finish_reason": FINISH[why], "coreinfer": core}

    def _logprobs(self, found: Sequence[Chances], at: int) -> dict[str, Any] | None:
        if not found:
            return None
        return of_chat(found, self.decode) if self.chat else of_completion(found, self.decode, at)
