"""ONNX exports in ONNX Runtime against the naive reference. `make test-runtimes` runs it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, build, down_modules, tokens
from families import one_thread as one_thread
from onnx_greedy import Onnx
from slow_truths import naive, some
from transformers import AutoTokenizer

from coreinfer.export.card import About
from coreinfer.export.choosing import Chosen
from coreinfer.export.run import write_models
from coreinfer.export.targets import why_not
from coreinfer.paths import DEMO_LM

onnx = pytest.importorskip("onnx")
HELD = ["OPT", "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3"]


def exported(model: Any, place: Path) -> Onnx:
    one = Chosen("cluster-0", 0, some(), 0.3, "a test")
    write_models(model, AutoTokenizer.from_pretrained(DEMO_LM), [one], About("m", "a" * 64, None), "onnx", "f32", place)
    return Onnx(place / "model.onnx")


def test_which_families() -> None:
    assert [name for name in FAMILIES if why_not("onnx", build(name)) is None] == HELD


@pytest.mark.parametrize("name", HELD)
def test_logits_equal_the_naive_reference(name: str, tmp_path: Path) -> None:
    """A text longer than the windows: in one call; and its beginning, then token by token on the cache."""
    model, ids = build(name), tokens(1, 30)
    wanted = naive(model, down_modules(model, name), some(), ids, 0).numpy()
    runtime = exported(model, tmp_path / "x")
    onnx.checker.check_model(str(tmp_path / "x" / "model.onnx"), full_check=True)
    whole, _ = runtime.step(ids.numpy(), None)
    assert np.allclose(whole, wanted, atol=2e-5)
    part, caches = runtime.step(ids[:, :7].numpy(), None)
    found = [part]
    for at in range(7, 30):
        part, caches = runtime.step(ids[:, at : at + 1].numpy(), caches)
        found.append(part)
    assert np.allclose(np.concatenate(found, 1), wanted, atol=2e-5)


@pytest.mark.parametrize("name", ["OPT", "Llama", "Gemma3"])
def test_texts_of_unequal_lengths_padded_on_the_left(name: str, tmp_path: Path) -> None:
    runtime, a, b = exported(build(name), tmp_path / "x"), tokens(1, 12, 1), tokens(1, 8, 2)
    both = torch.cat([a, torch.cat([torch.zeros(1, 4, dtype=torch.long), b], 1)]).numpy()
    mask = np.ones_like(both)
    mask[1, :4] = 0
    found, _ = runtime.step(both, None, mask)
    assert np.allclose(found[:1], runtime.step(a.numpy(), None)[0], atol=2e-5)
    assert np.allclose(found[1:, 4:], runtime.step(b.numpy(), None)[0], atol=2e-5)
