"""Tiny models for llama.cpp, a folder for its files, and continuations by it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import pytest
import torch
from families import FAMILIES, build, tokens
from slow_truths import some
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from coreinfer.clock import Clock
from coreinfer.neurons import NeuronSet
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

PROMPT, NEW, WIDE = 21, 72, 160  # past the tiny Gemmas' windows of 16; wide enough for budgets far apart
ROOMY: dict[str, Any] = {**families._LLAMA, "max_position_embeddings": 128, "intermediate_size": WIDE}
_HEADS: dict[str, Any] = {**ROOMY, "head_dim": 8}
_GEMMA: dict[str, Any] = {**_HEADS, **families._WINDOW, "query_pre_attn_scalar": 8}
_MIXED = ["sliding_attention", "full_attention"]
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
WANTED = {
    "Llama": LlamaConfig(**ROOMY, mlp_bias=True, attention_bias=True),
    "Llama, stretched": LlamaConfig(**_HEADS, rope_parameters=_LLAMA3),
    "Mistral": MistralConfig(**ROOMY, sliding_window=None),
    "Qwen2": Qwen2Config(**ROOMY),
    "Qwen3": Qwen3Config(**_HEADS, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "Gemma2": Gemma2Config(**_GEMMA, layer_types=_MIXED),
    "Gemma3": Gemma3TextConfig(**_GEMMA, layer_types=_MIXED),
    "Gemma3, all windows": Gemma3TextConfig(**_GEMMA),
    "Phi3": Phi3Config(**ROOMY, original_max_position_embeddings=128),
}
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("COREINFER_CACHE", str(tmp_path))
    for name, config in WANTED.items():
        monkeypatch.setitem(FAMILIES, name, config)
        monkeypatch.setitem(families.MODULES, name, families.MODULES[name.split(",")[0]])
    return tmp_path / "gguf"


def kept(seed: int = 3, budgets: tuple[int, ...] = (97, 31)) -> NeuronSet:
    return some(budgets, WIDE, seed)


def made_of(name: str) -> Any:
    """The tiny model; Gemmas, whose head is their embedding, would say the same token again and again: with the last
    norm's sign turned they do not.
    """
    model: Any = build(name)
    if name.startswith("Gemma"):
        with torch.no_grad():
            model.model.norm.weight.add_(1).neg_().sub_(1)
    return model


def prompt(seed: int = 0) -> torch.Tensor:
    return tokens(1, PROMPT, seed)


class Llama:
    """A model continued by llama.cpp."""

    def __init__(self, model: Any) -> None:
        self.model, self.runtimes = model, Runtimes(model, StatisticSettings(), 0)

    def made(
        self, neurons: Any = None, new: int = NEW, ids: Any = None,
        ends: Callable[[int], bool] = lambda token: False, **options: Any,
    ) -> list[int]:  # fmt: skip
        ids = prompt() if ids is None else ids
        out = self.runtimes.run("llama.cpp", ids, neurons or kept(), new, Clock(None), ends, {**GREEDY, **options})
        assert out.runtime == "llama.cpp"
        return [int(token) for token in out.ids[0]]
