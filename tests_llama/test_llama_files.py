"""GGUF files for llama.cpp and other programs; its place in the command line and the bench. `make test-llama`."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import run_cli
from families import FAMILIES, LAYERS, build
from families import one_thread as one_thread
from llamas import PROMPT, ROOMY, WIDE, Llama, prompt
from llamas import folder as folder
from slow_truths import some
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from coreinfer import CoreInferError
from coreinfer.bench.plan import Plan
from coreinfer.bench.run import measure
from coreinfer.decode.families import read_network
from coreinfer.gguf.kinds import Kind
from coreinfer.gguf.writer import write_gguf
from coreinfer.llamacpp.handover import Shape, sequence_state
from coreinfer.llamacpp.session import Session
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_LM

llama_cpp = pytest.importorskip("llama_cpp")


def test_what_llama_cpp_does_not_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FAMILIES, "Llama", LlamaConfig(**ROOMY, hidden_act="relu"))
    for name, options, why in (
        ("Llama", {}, "llama.cpp cannot serve the activation 'relu': its graph of llama has 'silu' alone: let"),
        ("OPT", {}, "llama.cpp cannot serve the architecture 'opt': let --runtime be auto"),
        ("Qwen2", {"repetition_penalty": 1.5}, "llama.cpp cannot serve options that only Transformers' generate knows"),
    ):
        with pytest.raises(CoreInferError, match=why):
            Llama(build(name)).made(**options)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COREINFER_CACHE", str(tmp_path / "file"))
    with pytest.raises(CoreInferError, match="is a file, no folder; name another folder in COREINFER_CACHE"):
        Llama(build("Qwen2")).made()


def test_what_is_no_gguf_file(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUFnothing")
    with pytest.raises(CoreInferError, match=r"llama.cpp cannot load .*x.gguf: .+; remove that file or choose another"):
        Session(tmp_path / "x.gguf", 64, Shape((None,), 8, True, torch.float32), 1)


@pytest.mark.parametrize("kind", ["bf16", "q8_0"])
def test_rounded_weights_stay_close(kind: Kind, tmp_path: Path) -> None:
    """Rounded weights and a float16 cache: logits within what rounding explains."""
    model = build("Llama").bfloat16()
    exact = build("Llama")
    exact.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    with torch.no_grad():
        wanted = exact(input_ids=prompt()).logits[0, -1]
        cache = model(input_ids=prompt()[:, :-1], use_cache=True).past_key_values
    every = NeuronSet((np.arange(WIDE, dtype=np.int32),) * LAYERS, WIDE)
    write_gguf(tmp_path / "x.gguf", model, read_network(model, bundle=False), every, kind)
    shape = Shape((None,) * LAYERS, 8, True, torch.float16)
    session = Session(tmp_path / "x.gguf", 64, shape, 1)
    session.restore(sequence_state([(x.keys[0], x.values[0]) for x in cache.layers], PROMPT - 1, shape))
    found = session.step(int(prompt()[0, -1]))
    assert (found - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_other_programs_read_the_file_with_its_tokenizer(tmp_path: Path) -> None:
    """Plain llama.cpp makes the same ids of a text, and the same text of ids."""
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_LM)
    model = AutoModelForCausalLM.from_pretrained(DEMO_LM, dtype=torch.bfloat16)
    every = some((300,) * 6, 2560)
    write_gguf(tmp_path / "x.gguf", model, read_network(model, bundle=False), every, "bf16", tokenizer)
    other = llama_cpp.Llama(str(tmp_path / "x.gguf"), n_ctx=128, verbose=False)
    for text in ("A table for two, please.\n\n  At 7:30 pm?", "Ärger  naïve 東京 🍕 don't", " x² = 3.14159; def f(x):"):
        ids = tokenizer(text)["input_ids"]
        assert other.tokenize(text.encode()) == ids
        assert other.detokenize(ids[1:]).decode() == text
    assert other.create_completion("The cell", max_tokens=8, temperature=0)["usage"]["completion_tokens"] == 8


def test_the_command_line_says_the_same_by_each_runtime() -> None:
    said = [
        run_cli("generate", "--keep", 0.4, "-n", 24, "--dtype", "float32", "--runtime", runtime, "--json", "The cell")
        for runtime in ("llama.cpp", "transformers")
    ]
    assert [result.code for result in said] == [0, 0]
    assert said[0].rows[0]["text"] == said[1].rows[0]["text"]
    assert said[0].rows[0]["runtime"] == "llama.cpp"


def test_the_bench_has_it_as_a_peer() -> None:
    found = measure(build("Llama"), "tiny", Plan(8, 6, 32, (1.0, 0.5)))
    assert [s.keep for s in found.speeds if s.engine == "llama.cpp" and s.tokens_per_second > 0] == [1.0, 0.5]
    assert "llama.cpp" not in found.left_out
    assert (
        measure(build("OPT"), "tiny", Plan(8, 6, 32)).left_out["llama.cpp"]
        == "it has no graph for the architecture 'opt'"
    )
