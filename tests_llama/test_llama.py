"""Tokens by llama.cpp against the naive reference, token for token. `make test-llama` runs it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, build, down_modules, tokens
from families import one_thread as one_thread
from llamas import GREEDY, NEW, PROMPT, ROOMY, WANTED, Llama, kept, made_of, prompt
from llamas import folder as folder
from slow_truths import greedy, naive
from transformers import MistralConfig

from coreinfer import CoreInferError
from coreinfer.clock import Clock
from coreinfer.llamacpp.decoder import LlamaDecoder
from coreinfer.llamacpp.files import Files
from coreinfer.neurons import NeuronSet
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

llama_cpp = pytest.importorskip("llama_cpp")


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
    monkeypatch.setitem(FAMILIES, "Mistral", MistralConfig(**ROOMY, sliding_window=32))
    model = build("Mistral")
    wanted = greedy(model, down_modules(model, "Mistral"), kept(), prompt(), 11)
    assert Llama(model).made(new=11) == wanted
    with pytest.raises(
        CoreInferError, match=r"have 33 tokens, and llama\.cpp's deci attends to all of them where this"
    ):
        Llama(model).made(new=12)
