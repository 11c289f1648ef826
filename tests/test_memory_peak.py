"""A budget is honoured: what a process takes, as the kernel counts it, of a model nearly twice as large."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from coreinfer.memory.peak import STATUS
from coreinfer.paths import DEMO_LM


def random_llama(place: Path, layers: int, hidden: int, width: int) -> int:
    """A checkpoint in float32, and how many bytes of weights it holds; a matrix's numbers are drawn once a shape."""
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=hidden, intermediate_size=width, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=None,
    )  # fmt: skip
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    rng, drawn, weights = torch.Generator().manual_seed(0), dict[Any, torch.Tensor](), dict[str, torch.Tensor]()
    for number, (name, p) in enumerate(empty.named_parameters()):
        if p.shape not in drawn:
            drawn[p.shape] = torch.ones(p.shape) if p.ndim < 2 else 0.04 * torch.randn(p.shape, generator=rng)
        weights[name] = drawn[p.shape].roll(number, 0)
    config.save_pretrained(place)
    tokenizer.save_pretrained(place)
    save_file(weights, place / "model.safetensors", {"format": "pt"})
    return sum(w.nbytes for w in weights.values())


@pytest.mark.skipif(not STATUS.exists(), reason="reads the peak from Linux")
def test_the_peak_stays_within_the_budget(tmp_path: Path) -> None:
    """Of loading, of two generations on two sets, of a long prompt, and of Transformers' runtime; the tokens are those
    of the whole model.
    """
    weights = random_llama(tmp_path / "lm", 10, 256, 6144)
    random_llama(tmp_path / "tiny", 1, 64, 128)
    said = subprocess.run(
        [sys.executable, ROOT / "tests" / "under_a_budget.py", tmp_path], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["budget"] < 0.6 * weights
    for name, peak in found["peaks"].items():
        assert 0.5 * found["budget"] < peak <= found["budget"], (name, peak, found)
    assert found["same"] == [True, True, True, True]
