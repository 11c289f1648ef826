"""A model under a budget: the tokens of the model without one, whoever makes them, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_cli
from families import FAMILIES, LAYERS, build, down_modules
from families import one_thread as one_thread
from slow_truths import greedy, some
from streamed import PLENTY, STREAMED, budget, each, opened, saved
from test_runtime import GREEDY, ids

from coreinfer import CoreInferError, Engine
from coreinfer.clock import Clock
from coreinfer.memory import mapped
from coreinfer.memory.budget import Budget
from coreinfer.memory.linear import is_streamed
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_LM
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

SOME = 10  # tokens
WORDS = "Every living cell is wrapped in a membrane"


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


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """The demo, streamed."""
    return Engine.load(dtype="float32", memory="160MiB", bundles=tmp_path_factory.mktemp("bundles"))


@pytest.fixture(scope="module")
def whole(engine: Engine) -> Engine:
    made = Engine.load(dtype="float32")
    made.__dict__["embedder"] = engine.embedder
    return made


def test_an_engine_under_a_budget_says_the_same(engine: Engine, whole: Engine) -> None:
    assert engine.tokenizer is not None
    assert "_lm" not in engine.__dict__  # the tokenizer is there before the model
    for how in ({"policy": "stability"}, {"runtime": "transformers"}, {"refresh": 16}):
        made, wanted = (e.generate(WORDS, keep=0.3, max_new_tokens=24, **how) for e in (engine, whole))
        assert (made.text, made.runtime, made.refreshes) == (wanted.text, wanted.runtime, wanted.refreshes)
        assert made.prediction.neurons == wanted.prediction.neurons
    assert is_streamed(engine.model)
    assert engine.predict(WORDS, "stability").neurons == whole.predict(WORDS, "stability").neurons


def test_an_engine_refuses_what_does_not_fit(engine: Engine) -> None:
    with pytest.raises(
        CoreInferError, match=r"at keep 1 need at least .*MiB \(embeddings .*\): give that much, or --keep 0\.\d+ at"
    ):
        engine.generate(WORDS, "dense")
    with pytest.raises(CoreInferError, match=r"452 tokens at keep 0\.4 need at least"):
        engine.generate("word " * 400, keep=0.4, max_new_tokens=50)


def test_what_was_left_in_memory_counts(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger set, or a longer text's caches, leave before a generation that has no room beside them."""
    opening, forgotten = engine._opening, list[str]()
    few, many = (engine.predict(WORDS, "similarity", keep) for keep in (0.1, 0.3))
    assert opening.budget is not None
    plan, kept = opening.budget.plan, opening._kept
    monkeypatch.setattr(opening, "_left", (0, 0))
    limit = max(plan.needs(kept(many), 10, 20), plan.needs(kept(few), 300, 310))
    assert plan.needs(kept(many), 300, 310) > limit
    monkeypatch.setattr(opening.budget, "plan", replace(plan, limit=limit))
    for name, *how in (("many", many, 10, 20), ("few", few, 10, 20), ("long", few, 300, 310), ("few", few, 10, 20),
                       ("many", many, 10, 20)):  # fmt: skip
        with opening.within(*how, lambda name=name: forgotten.append(name)):
            pass
    assert forgotten == ["long"]
    with pytest.raises(CoreInferError, match="was not enough for this text: raise it"), opening.within(few, 1, 2, list):
        raise torch.OutOfMemoryError


def test_the_bench(tmp_path: Path) -> None:
    common = ("bench", "--bundles", tmp_path, "--dtype", "bfloat16", "-n", 4, "--prompt-tokens", 16)
    result = run_cli(*common, "--memory", "100MiB", "--keep", 0.4, "--keep", 0.2)
    assert result.code == 0, result.err
    row = json.loads(result.out.splitlines()[-1])
    assert (row["streamed"], row["memory"], len(row["rows"])) == (True, 100 << 20, 2)
    assert len(result.out.splitlines()) == 2 + 2 + 2 + 1
    assert row["peer"]["tokens_per_second"] > 0
    assert "transformers with accelerate, offloaded: first token" in result.out
    for one in row["rows"]:
        assert one["tokens_per_second"] > 0
        assert one["first_token_s"] > 0
        assert 0 < one["planned"] <= row["memory"]
        assert one["peak"] > 0.2 * one["planned"]
    small = run_cli(*common, "--memory", "30MiB")
    assert (small.code, "20 tokens at keep 0.4 need at least" in small.err) == (2, True)
    odd = run_cli(*common, "--memory", "30MiB", "--shape", "opt-125m")
    assert (odd.code, "--memory measures a model on disk" in odd.err) == (2, True)


@pytest.fixture
def loaded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """No run loads the embedder again."""
    monkeypatch.setattr(Engine, "embedder", engine.embedder)


def test_by_the_command_line(whole: Engine, loaded: None, tmp_path: Path) -> None:
    common = ("generate", WORDS, "-n", 12, "--keep", 0.3, "--dtype", "float32", "--bundles", tmp_path / "here")
    tight = run_cli(*common, "--memory", "160MiB")
    assert (tight.code, tight.out) == (0, whole.generate(WORDS, keep=0.3, max_new_tokens=12).text + "\n")
    assert "writing the neurons of demo to" in tight.err
    (place,) = (tmp_path / "here").iterdir()
    for size, said in (
        ("12", "the memory is '12': give a size such as 12GiB"),
        ("1MiB", "12 tokens at keep 0.3 need at least"),
    ):
        result = run_cli(*common, "--memory", size)
        assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
        assert said in result.err
        assert "give --model" not in result.err
    assert list((tmp_path / "here").iterdir()) == [place]


def test_what_a_budget_does_not_reckon_with(tmp_path: Path) -> None:
    engine = Engine.load(memory="12GiB")
    with pytest.raises(CoreInferError, match="lossless decoding needs more than a memory budget reckons with"):
        engine.generate("a river", lossless=True)
    with pytest.raises(CoreInferError, match="a batch needs more than a memory budget reckons with"):
        engine.generate_many(["a river"])
    runtimes = Runtimes(opened("Llama", tmp_path), StatisticSettings(), 0)
    with pytest.raises(CoreInferError, match=r"llama.cpp cannot serve a model under a memory budget"):
        runtimes.run("llama.cpp", ids(), some(), 2, Clock(None), lambda token: False, GREEDY)
