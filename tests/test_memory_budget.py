"""A model under a budget: the tokens of the model without one, whoever makes them, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, build, down_modules
from families import one_thread as one_thread
from slow_truths import greedy, some
from streamed import PLENTY, STREAMED, budget, each, opened, saved
from test_runtime import GREEDY, ids

from coreinfer import CoreInferError
from coreinfer.clock import Clock
from coreinfer.memory import mapped
from coreinfer.memory.budget import Budget
from coreinfer.memory.linear import is_streamed
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_LM
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

SOME = 10  # tokens


@each
def test_tokens_equal_the_naive_reference(name: str, tmp_path: Path) -> None:
    """In one set after another, by both runtimes in turn."""
    runtimes, whole = Runtimes(opened(name, tmp_path), StatisticSettings(), 0), build(name)
    for runtime, seed in (("coreinfer", 3), ("auto", 4), ("transformers", 5)):
        neurons = some(seed=seed)
        made = runtimes.run(runtime, ids(), neurons, SOME, Clock(None), lambda token: False, GREEDY)  # type: ignore[arg-type]
        assert made.ids[0].tolist() == greedy(whole, down_modules(whole, name), neurons, ids(), SOME)


def test_a_set_decided_in_prefill_gets_the_same_statistic(tmp_path: Path) -> None:
    found = list[Any]()

    def decide(shares: Any, count: int) -> NeuronSet:
        found.append(shares)
        return some()

    made = list[Any]()
    for model in (opened("Llama", tmp_path), build("Llama")):
        for runtime in ("coreinfer", "transformers"):
            runtimes = Runtimes(model, StatisticSettings(), 0)
            made += runtimes.run(runtime, ids(), decide, SOME, Clock(None), lambda token: False, GREEDY).ids.tolist()
    assert all(tokens == made[0] for tokens in made)
    for shares in found:
        np.testing.assert_allclose(shares, found[-1], atol=1e-6)


def test_one_layer_is_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever computes: before another layer is touched, the last one's pages leave."""
    model, events = opened("Llama", tmp_path), list[tuple[str, int]]()
    leave = mapped.Mapped.leave

    def leaving(self: mapped.Mapped) -> None:
        if self._here >= 0:
            events.append(("leave", self._here))
        leave(self)

    view = mapped.Mapped._view

    def viewing(self: mapped.Mapped, number: int) -> torch.Tensor:
        events.append(("touch", number))
        return view(self, number)

    monkeypatch.setattr(mapped.Mapped, "leave", leaving)
    monkeypatch.setattr(mapped.Mapped, "_view", viewing)
    runtimes = Runtimes(model, StatisticSettings(), 0)
    runtimes.run("coreinfer", ids(), some(), 4, Clock(None), lambda token: False, GREEDY)
    here = -1
    for event, number in events:
        if event == "leave":
            here = -1 if number == here else here
        else:
            assert here in (-1, number)
            here = number
    assert {number for event, number in events if event == "leave"} == set(range(LAYERS))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@each
def test_on_a_gpu(name: str, tmp_path: Path) -> None:
    """Copies run beside the computing, and a captured step serves one set after another."""
    made, whole = budget(saved(name, tmp_path / name), tmp_path / "bundles", device="cuda"), build(name)
    runtimes = Runtimes(made.load(), StatisticSettings(), 0)
    for runtime, seed in (("coreinfer", 3), ("auto", 4), ("transformers", 5)):
        neurons = some(seed=seed)
        out = runtimes.run(runtime, ids().cuda(), neurons, SOME, Clock(None), lambda token: False, GREEDY)  # type: ignore[arg-type]
        assert out.ids[0].tolist() == greedy(whole, down_modules(whole, name), neurons, ids(), SOME)


def test_without_numba_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "coreinfer.decode.swift", None)
    runtimes = Runtimes(opened("Llama", tmp_path), StatisticSettings(), 0)
    with pytest.raises(CoreInferError, match="a memory budget on a CPU needs Numba"):
        runtimes.run("coreinfer", ids(), some(), 4, Clock(None), lambda token: False, GREEDY)


def test_what_fits_is_an_ordinary_model(tmp_path: Path) -> None:
    place = saved("Llama", tmp_path / "lm")
    made = Budget(str(place), "float32", "cpu", PLENTY, tmp_path / "bundles")
    assert not is_streamed(made.load())
    assert not (tmp_path / "bundles").exists()
    assert Budget(str(place), "float32", "cpu", 1 << 20, tmp_path / "bundles").plan.streamed


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(STREAMED)))
def test_families_without_own_steps_are_refused(name: str, tmp_path: Path) -> None:
    place = saved(name, tmp_path / "lm")
    with pytest.raises(CoreInferError, match=r"not the architecture '\w+': leave out --memory"):
        budget(place, tmp_path)


def test_files_that_are_not_plain_safetensors_are_refused(tmp_path: Path) -> None:
    (tmp_path / "lm.gguf").write_bytes(b"GGUF")
    with pytest.raises(CoreInferError, match=r"needs safetensors weights, .*lm.gguf is GGUF: leave out --memory"):
        budget(tmp_path / "lm.gguf", tmp_path)
    place = saved("Llama", tmp_path / "lm")
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    with pytest.raises(CoreInferError, match="are quantised: leave out --memory"):
        budget(place, tmp_path)
    with pytest.raises(CoreInferError, match="there is no language model 'nowhere/at-all'"):
        budget(Path("nowhere/at-all"), tmp_path)
    with pytest.raises(CoreInferError, match="for the devices cpu and cuda, not 'meta': leave out --memory"):
        budget(place, tmp_path, device="meta")
    place = saved("OPT", tmp_path / "pickled")
    torch.save(build("OPT").state_dict(), place / "pytorch_model.bin")
    (place / "model.safetensors").unlink()
    with pytest.raises(CoreInferError, match=r"cannot load .* no file named model.safetensors"):
        budget(place, tmp_path / "bundles").load()


def test_how_it_generates_is_the_models_own(tmp_path: Path) -> None:
    """Its generation_config counts, which only Transformers' generate heeds."""
    place = saved("Llama", tmp_path / "lm")
    (place / "generation_config.json").write_text(json.dumps({"repetition_penalty": 1.3, "eos_token_id": 7}))
    model: Any = budget(place, tmp_path / "bundles").load()
    assert (model.generation_config.repetition_penalty, model.generation_config.eos_token_id) == (1.3, 7)
    (place / "generation_config.json").unlink()
    bare: Any = budget(place, tmp_path / "bundles").load()
    assert bare.generation_config.repetition_penalty in (None, 1.0)


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    place = saved("Llama", tmp_path / "lm")
    AutoTokenizer.from_pretrained(DEMO_LM).save_pretrained(place)
    with pytest.raises(CoreInferError, match="its tokenizer knows 8192 tokens and the model 96"):
        budget(place, tmp_path / "bundles").load()
