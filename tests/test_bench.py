"""The bench: its arithmetic, what it counts, what it says; on a tiny model, whose speeds mean nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import fine
from conftest import run_cli
from families import LAYERS, WIDTH, build, tokens
from families import one_thread as one_thread
from small_models import save_llama

from coreinfer import CoreInferError
from coreinfer.bench import limits, page
from coreinfer.bench.lossless import examples, measure_lossless
from coreinfer.bench.page import TOP, put, section, title, write
from coreinfer.bench.plan import PROMPT, Plan
from coreinfer.bench.report import last_line, picture, save, summary, table
from coreinfer.bench.run import Measured, measure
from coreinfer.bench.shapes import SHAPES, random_model
from coreinfer.bench.subjects import COMPILED, Own, Subject, does_not_compile, random_set, transformers_eager
from coreinfer.engine import Engine
from coreinfer.llamacpp.session import library
from coreinfer.machine import machine

PLAN = Plan(prompt_tokens=8, new_tokens=6, context=32, keeps=(1.0, 0.5), texts=3)
KEYS = {
    "shape",
    "keep",
    "dtype",
    "tokens_per_second",
    "bandwidth_GBps",
    "limit_tokens_per_second",
    "share_of_limit",
    "peers",
}


@pytest.fixture(autouse=True, scope="module")
def little_memory() -> Any:
    """The bandwidth of a few megabytes will do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "CPU_BYTES", 1 << 22)
        yield


@pytest.fixture(scope="module")
def made(little_memory: Any) -> Measured:
    """Without llama.cpp, whether it is installed or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "llama_cpp", None)
        library.cache_clear()
        return measure(build("Llama"), "tiny", PLAN)


def test_everybody_is_measured(made: Measured) -> None:
    assert [(s.engine, s.keep, s.texts) for s in made.speeds] == [
        ("transformers", 1.0, 1), ("transformers", 0.5, 1), ("coreinfer", 1.0, 1), ("coreinfer", 0.5, 1),
        ("coreinfer", 0.5, 3),
    ]  # fmt: skip
    assert all(s.tokens_per_second > 0 for s in made.speeds)
    assert set(made.left_out) == {"transformers, static cache, torch.compile", "llama.cpp"}
    assert made.left_out["llama.cpp"].startswith("llama.cpp needs the package llama-cpp-python: pip install")
    assert made.prefill_s > 0
    assert made.switch_s > 0


def test_the_limit_is_the_bandwidth_over_the_bytes(made: Measured) -> None:
    """Every weight of the tiny Llama but its embedding, float32; half of the neurons; the cache at the middle."""
    model = build("Llama")
    rows = sum(p.numel() for name, p in model.named_parameters() if "mlp" in name and p.ndim == 2)
    fixed = sum(
        p.numel() for name, p in model.named_parameters() if ("self_attn" in name or "lm_head" in name) and p.ndim == 2
    )
    cache = LAYERS * 2 * (8 + 3) * 16
    for speed in made.speeds:
        read = 4 * (rows * speed.keep + fixed + speed.texts * (32 + cache))  # 32: the embedding's row
        assert speed.limit == pytest.approx(speed.texts * made.bandwidth / read)
        assert speed.share_of_limit == pytest.approx(speed.tokens_per_second / speed.limit)


def test_so_many_tokens_are_decoded() -> None:
    model, ids, steps = build("Llama"), tokens(1, 8), list[int]()
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: steps.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    assert transformers_eager(model, ids, random_set(LAYERS, WIDTH, 0.5), 0.5).decode(5) > 0
    assert steps == [8, 1, 1, 1, 1, 1]
    hook.remove()
    own = Own(model, ids, 32)
    assert own.subject(0.5).decode(5) > 0
    assert int(own.decoder.state.feed.position) == 8 + 5
    assert own.batch(0.5, 3).decode(5) > 0
    assert own.decoder.state.feed.position.tolist() == [8 + 5] * 3
    assert torch.equal(own.decoder.state.history[0], own.decoder.state.history[2])


def test_the_last_line_is_json(made: Measured) -> None:
    row = json.loads(last_line(made))
    assert set(row) >= KEYS
    assert row == json.loads(json.dumps(summary(made)))
    assert row["keep"] == 0.5
    assert set(row["peers"]) == {
        "transformers, keep 1", "transformers, keep 0.5", "coreinfer, keep 1", "coreinfer, keep 0.5, 3 texts",
    }  # fmt: skip
    assert len(table(made)) == 2 + len(made.speeds) + 3


def test_lossless_is_measured_where_there_is_an_artifact(engine: Engine, little_memory: Any) -> None:
    found = measure_lossless(engine, examples(engine)[:2], 6)
    assert found.identical
    assert found.keep == engine.artifact.manifest.default_keep / 2
    assert 0 <= found.accepted <= 1
    assert found.tokens_per_second > 0
    with_it = replace(measure(build("Llama"), "tiny", PLAN), lossless=found)
    assert summary(with_it)["lossless"]["over_dense"] == found.over_dense
    assert "the same texts" in table(with_it)[-3]
    assert "OTHER TEXTS" in table(replace(with_it, lossless=replace(found, identical=False)))[-3]


def test_what_is_saved(made: Measured, tmp_path: Path) -> None:
    save(made, tmp_path)
    assert json.loads((tmp_path / "bench.json").read_text("utf-8"))["speeds"][0]["engine"] == "transformers"
    assert (tmp_path / "bench.svg").read_text("utf-8").count("<svg") == picture(made).count("<svg") == 1


def test_a_page_grows_by_sections_and_replaces_them(
    made: Measured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, other = tmp_path / "page.md", replace(made, shape="large")
    write(made, "coreinfer bench --keep 1", place)
    write(other, "coreinfer bench --shape large", place)
    both = place.read_text("utf-8")
    write(replace(made, bandwidth=7e9), "coreinfer bench --keep 0.5", place)
    again = place.read_text("utf-8")
    assert both.count("\n## ") == again.count("\n## ") == 2
    assert both.startswith(TOP)
    assert [line for line in again.splitlines() if line.startswith("## ")] == [f"## {title(m)}" for m in (made, other)]
    assert "--keep 1" not in again
    assert "memory 7 GB/s" in again
    assert "tok/s" not in again
    monkeypatch.setattr(page, "machine", lambda: machine() | {"gpu": "NVIDIA H"})
    on_gpu = section(replace(made, device="cuda:0", prompt_tokens=PROMPT), "x")
    assert "tok/s" in on_gpu
    assert on_gpu.startswith("tiny, float32, on one NVIDIA H\n")
    assert again.partition("## large")[2] == both.partition("## large")[2]
    assert put("", section(other, "x")).startswith(TOP)


def test_a_peer_that_does_not_compile_is_left_out() -> None:
    def refuses(count: int) -> float:
        raise torch._dynamo.exc.UserError(torch._dynamo.exc.UserErrorType.DYNAMIC_CONTROL_FLOW, "no guard on u0\nmore")

    assert does_not_compile(Subject(COMPILED, 1.0, refuses)) == "not compiled: no guard on u0"
    assert does_not_compile(Subject(COMPILED, 1.0, float)) is None


def test_what_cannot_be_measured() -> None:
    with pytest.raises(CoreInferError, match="do not decode the architecture 'gpt2'"):
        measure(build("GPT2"), "tiny", PLAN)
    with pytest.raises(CoreInferError, match="--context is 100, tiny has a context of 64: give at most that"):
        measure(build("Llama"), "tiny", Plan(8, 6, 100))
    with pytest.raises(CoreInferError, match="30 prompt tokens and 6 more do not fit into a context of 32"):
        Plan(30, 6, 32)


def test_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        from transformers import AutoModelForCausalLM

        sizes = {
            name: sum(p.numel() for p in AutoModelForCausalLM.from_config(config).parameters())  # type: ignore[no-untyped-call]
            for name, config in SHAPES.items()
        }
    wanted = {"llama-3.1-8b": 8.03e9, "llama-3.2-1b": 1.236e9, "llama-3.2-3b": 3.21e9, "qwen3-0.6b": 0.596e9,
              "opt-6.7b": 6.66e9, "opt-125m": 0.125e9}  # fmt: skip
    assert sizes == {name: pytest.approx(size, rel=0.01) for name, size in wanted.items()}
    assert random_model("opt-125m", torch.bfloat16, "cpu").dtype is torch.bfloat16


def test_what_the_command_line_says(tmp_path: Path, little_memory: Any) -> None:
    """A line of talk for each stage, a table, and the row; a folder that nothing came into does not stay."""
    place = save_llama(tmp_path / "tiny", layers=2, width=48, context=64)
    given = ("bench", "--model", place, "--prompt-tokens", 8, "-n", 6, "--context", 32, "--batch", 1, "-k", 0.5)
    said = fine(run_cli(*given, "--output", tmp_path / "out"))
    talk = [line for line in said.err.splitlines() if not line.startswith("compiling")]  # once on a machine
    assert talk == ["memory", "rounds of decoding"]
    assert json.loads(said.out.splitlines()[-1])["shape"] == "tiny"
    assert fine(run_cli(*given, "--quiet")).err == ""
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["bench.json", "bench.svg"]
    failed = run_cli("bench", "--model", place, "--context", 999, "--output", tmp_path / "not" / "yet")
    assert (failed.code, "--context is 999" in failed.err) == (2, True)
    assert not (tmp_path / "not").exists()


def test_by_the_command_line() -> None:
    for options, said in (
        (("--shape", "llama-9b"), "--shape is 'llama-9b': choose one of llama-3.1-8b"),
        (("--shape", "opt-125m", "--model", "x"), "both say what to measure"),
        (("--keep", "0"), "--keep is 0"),
        (("--max-new-tokens", "1"), "--max-new-tokens is 1"),
    ):
        result = run_cli("bench", *options)
        assert (result.code, said in result.err) == (2, True), result.err
