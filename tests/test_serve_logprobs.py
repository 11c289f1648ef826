"""OpenAI's two forms of log-probabilities."""

import math

import pytest
import torch

from coreinfer.serve.logprobs import chances, of_chat, of_completion

TEXTS = {0: "a", 1: "\ufffd", 2: "\ufffd", 3: "b"}
LOGITS = torch.tensor([0.0, 2.0, 1.0, -1.0])


def decode(tokens: list[int]) -> str:
    return "".join(TEXTS[token] for token in tokens)


def test_the_token_itself_is_among_them_and_of_equal_texts_the_likeliest() -> None:
    made = of_completion([chances(LOGITS, 3, 3)], decode, 5)
    logs = torch.log_softmax(LOGITS, 0).tolist()
    assert made["tokens"] == ["b"]
    assert made["text_offset"] == [5]
    assert made["top_logprobs"] == [pytest.approx({"\ufffd": logs[1], "a": logs[0], "b": logs[3]})]
    assert made["token_logprobs"] == [pytest.approx(logs[3])]
    assert math.isclose(sum(map(math.exp, logs)), 1.0, rel_tol=1e-6)


def test_parts_of_characters_have_no_bytes_here() -> None:
    (entry,) = of_chat([chances(LOGITS, 3, 2)], decode)["content"]
    assert entry["bytes"] == [98]
    assert [other["bytes"] for other in entry["top_logprobs"]] == [None, None]
