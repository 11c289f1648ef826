"""The tiny models of each family on disk, and opened with their neurons streamed."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from families import VOCAB, build
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from coreinfer.memory.budget import Budget

STREAMED = ("OPT", "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3")
each = pytest.mark.parametrize("name", STREAMED)
PLENTY = 1 << 40


def saved(name: str, place: Path, **how: Any) -> Path:
    """A family's model in a folder, with a tokenizer of as many words."""
    words = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0"))
    PreTrainedTokenizerFast(tokenizer_object=words).save_pretrained(place)  # type: ignore[no-untyped-call]
    build(name).save_pretrained(place, **how)
    return place


def budget(place: Path, folder: Path, dtype: str = "float32", device: str = "cpu") -> Budget:
    """A budget under which the model is streamed, however small it is."""
    made = Budget(str(place), dtype, device, PLENTY, folder)
    made.plan = replace(made.plan, streamed=True)
    return made


def opened(name: str, place: Path) -> PreTrainedModel:
    return budget(saved(name, place / name), place / "bundles").load()
