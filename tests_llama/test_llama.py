"""Tokens by llama.cpp against the naive reference, token for token. `make test-llama` runs it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from conftest import run_cli
from families import FAMILIES, LAYERS, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import greedy, naive, some
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    Qwen2Config,
    Qwen3Config,
)

from coreinfer import CoreInferError
from coreinfer.bench.plan import Plan
from coreinfer.bench.run import measure
from coreinfer.clock import Clock
from coreinfer.decode.families import read_network
from coreinfer.gguf.writer import Kind, write_gguf
from coreinfer.llamacpp.decoder import LlamaDecoder
from coreinfer.llamacpp.files import Files
from coreinfer.llamacpp.handover import Shape, sequence_state
from coreinfer.llamacpp.session import Session
from coreinfer.neurons import NeuronSet
from coreinfer.paths import DEMO_LM
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

llama_cpp = pytest.importorskip("llama_cpp")
PROMPT, NEW, WIDE = 21, 72, 160  # past the tiny Gemmas' windows of 16; wide enough for budgets far apart
_ROOMY: dict[str, Any] = {**families._LLAMA, "max_position_embeddings": 128, "intermediate_size": WIDE}
_HEADS: dict[str, Any] = {**_ROOMY, "head_dim": 8}
_GEMMA: dict[str, Any] = {**_HEADS, **families._WINDOW, "query_pre_attn_scalar": 8}
_MIXED = ["sliding_attention", "full_attention"]
_LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
WANTED = {
    "Llama": LlamaConfig(**_ROOMY, mlp_bias=True, attention_bias=True),
    "Llama, stretched": LlamaConfig(**_HEADS, rope_parameters=_LLAMA3),
    "Mistral": MistralConfig(**_ROOMY, sliding_window=None),
    "Qwen2": Qwen2Config(**_ROOMY),
    "Qwen3": Qwen3Config(**_HEADS, rope_parameters={"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}),
    "Gemma2": Gemma2Config(**_GEMMA, layer_types=_MIXED),
    "Gemma3": Gemma3TextConfig(**_GEMMA, layer_types=_MIXED),
    "Gemma3, all windows": Gemma3TextConfig(**_GEMMA),
    "Phi3": Phi3Config(**_ROOMY, original_max_position_embeddings=128),
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


@pytest.mark.parametrize("name", WANTED)
def test_tokens_equal_the_naive_reference(name: str) -> None:
    """The prompt dense, 72 tokens on the kept neurons; the layers keep 97 and 31 of 160."""
    model = made_of(name)
    wanted = greedy(model, down_modules(model, name), kept(), prompt(), NEW)
    assert len(set(wanted[PROMPT:])) > 5  # no loop that anything would repeat
    assert Llama(made_of(name)).made() == wanted


@pytest.mark.parametrize("name", WANTED)
def test_logits_equal_the_naive_reference(name: str, folder: Path) -> None:
    """Of random texts; what differs is the rounding of float32, and Gemma's GELU, in llama.cpp a table of float16."""
    ids, decoder = tokens(1, 100, 4), LlamaDecoder(build(name), Files(folder), None, 128)
    model = build(name)
    wanted = naive(model, down_modules(model, name), kept(), ids, PROMPT)[0]
    with torch.no_grad():
        cache = decoder.model(input_ids=ids[:, :PROMPT], use_cache=True).past_key_values
    decoder.begin(ids[:, :PROMPT], cache, 0)
    decoder.keep(kept())
    for position in range(PROMPT, 100):
        found = decoder.logits(int(ids[0, position]))
        assert torch.allclose(found, wanted[position], atol=4e-3 if name.startswith("Gemma") else 2e-5)


def test_the_prompt_ran_dense() -> None:
    """A prompt on few neurons gives another text than a dense one: so the cache handed over is the dense one's."""
    model, few, sliced = build("Llama"), kept(budgets=(9, 5)), prompt()
    for _ in range(NEW):
        told = naive(model, down_modules(model, "Llama"), few, sliced, 0)[:, -1:].argmax(-1)
        sliced = torch.cat([sliced, told], 1)
    wanted = greedy(model, down_modules(model, "Llama"), few, prompt(), NEW)
    assert wanted != sliced[0].tolist()
    assert Llama(model).made(few) == wanted


def test_a_set_decided_in_prefill() -> None:
    counted = list[int]()

    def decide(shares: Any, count: int) -> NeuronSet:
        counted.append(count)
        return kept()

    assert Llama(build("Llama")).made(decide) == Llama(build("Llama")).made()
    assert counted == [PROMPT]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {path.name: (path.stat().st_ino, path.stat().st_size) for path in folder.iterdir()}


def test_sets_come_and_go_and_their_files_stay(folder: Path) -> None:
    llama, sets = Llama(build("Llama")), [kept(), kept(9), kept(budgets=(160, 160))]
    first = [llama.made(neurons) for neurons in sets]
    model = build("Llama")
    assert first == [greedy(model, down_modules(model, "Llama"), neurons, prompt(), NEW) for neurons in sets]
    there = files(folder)
    assert len(there) == 3
    assert [llama.made(neurons) for neurons in reversed(sets)] == first[::-1]
    assert Llama(build("Llama")).made(sets[1]) == first[1]
    assert files(folder) == there


def test_other_weights_get_another_file(folder: Path) -> None:
    model = build("Llama")
    llama, before = Llama(model), list[int]()
    before = llama.made()
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = model.get_output_embeddings().weight.flip(0)
    after = llama.made()
    assert after != before
    assert after == greedy(model, down_modules(model, "Llama"), kept(), prompt(), NEW)
    assert len(files(folder)) == 2


def test_a_file_cut_short_is_written_anew(folder: Path) -> None:
    whole = Llama(build("Llama")).made()
    [path] = folder.iterdir()
    size = path.stat().st_size
    with path.open("rb+") as file:
        file.truncate(size // 2)
    assert Llama(build("Llama")).made() == whole
    assert path.stat().st_size == size


def test_a_longer_text_gets_a_larger_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.runtime.ROOM", 24)
    model = build("Qwen3")
    llama = Llama(model)
    for length in (2, 90, 107):
        assert llama.made(new=length) == greedy(model, down_modules(model, "Qwen3"), kept(), prompt(), length)


def test_prompts_follow_each_other() -> None:
    """Nothing of a longer text before shows in a shorter one."""
    model = made_of("Gemma3")
    llama = Llama(model)
    for seed, length in ((1, 40), (2, 5), (3, 20)):
        ids = tokens(1, length, seed)
        assert llama.made(new=24, ids=ids) == greedy(model, down_modules(model, "Gemma3"), kept(), ids, 24)


def test_it_ends_where_it_should() -> None:
    llama = Llama(build("Llama"))
    whole = llama.made()
    for at in (PROMPT, PROMPT + 3):
        stop = whole[at]
        assert llama.made(ends=lambda token, stop=stop: token == stop) == whole[: whole.index(stop, PROMPT) + 1]
    assert llama.made(new=1) == whole[: PROMPT + 1]


def test_a_seed_draws_what_the_projects_own_steps_draw() -> None:
    options = {"do_sample": True, "top_k": 0, "temperature": 1.5}
    drawn = list[list[int]]()
    for runtime in ("llama.cpp", "coreinfer"):
        runtimes = Runtimes(build("Llama"), StatisticSettings(), 0)
        torch.manual_seed(5)
        out = runtimes.run(runtime, prompt(), kept(), NEW, Clock(None), lambda token: False, {**GREEDY, **options})  # type: ignore[arg-type]
        drawn.append(out.ids[0].tolist())
    assert drawn[0] == drawn[1]
    assert drawn[0] != Llama(build("Llama")).made()


def test_a_shorter_window_than_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "Mistral", MistralConfig(**_ROOMY, sliding_window=32))
    model = build("Mistral")
    wanted = greedy(model, down_modules(model, "Mistral"), kept(), prompt(), 11)
    assert Llama(model).made(new=11) == wanted
    with pytest.raises(
        CoreInferError, match=r"have 33 tokens, and llama\.cpp's deci attends to all of them where this"
    ):
        Llama(model).made(new=12)


def test_what_llama_cpp_does_not_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(FAMILIES, "Llama", LlamaConfig(**_ROOMY, hidden_act="relu"))
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
