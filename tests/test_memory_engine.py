"""An engine under a budget, as users call it: what it says, what it refuses, the command line and the bench."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import run_cli
from families import one_thread as one_thread
from slow_truths import some
from streamed import opened
from test_runtime import GREEDY, ids

from coreinfer import CoreInferError, Engine
from coreinfer.clock import Clock
from coreinfer.memory.linear import is_streamed
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings
from pipeline.heap import give_back

WORDS = "Every living cell is wrapped in a membrane"


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
        CoreInferError, match=r"at keep 1 need at least .* MiB \(embeddings .*\): give that much, or --keep 0\.\d+ at"
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
    give_back()  # what was freed before would be used again, and be no peak
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
