"""Every way to generate on a slim model, and every way into it, against a naive loop."""

from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from families import BOS, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import PROMPT, beams, families, generated, greedy, logits, naive, some
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, RecurrentGemmaConfig

from coreinfer.capture import Capture, valid_tokens
from coreinfer.deciding import Decide
from coreinfer.errors import CoreInferError
from coreinfer.mlp import down_rows
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, top
from coreinfer.settings import StatisticSettings
from coreinfer.slimming import slim

NEW = 10
GenerationConfig: Any = transformers.GenerationConfig
WAYS: dict[str, dict[str, Any]] = {
    "cache": {},
    "no cache": {"use_cache": False},
    "static cache": {"cache_implementation": "static"},
    "chunked prefill": {"prefill_chunk_size": 4},
    "chunks of one": {"prefill_chunk_size": 1},
    "prompt lookup": {"prompt_lookup_num_tokens": 4},
    "config": {"generation_config": GenerationConfig(prompt_lookup_num_tokens=3, max_new_tokens=NEW)},
}
budgets = np.array([20, 13])


def prompt() -> Tensor:
    """Ids (1, 12) that repeat themselves, so that prompt lookup finds candidates in the very first forward."""
    ids = tokens(1, 5, 3)
    return torch.cat([ids, ids, ids[:, :2]], 1)


def by_prefill(model: PreTrainedModel, ids: Tensor) -> NeuronSet:
    with torch.no_grad(), Capture(model, StatisticSettings()) as capture:
        capture.expect(valid_tokens(ids, None, BOS))
        model(ids)
        return top(capture.shares()[0], budgets)


def decide(shares: Any, count: int) -> NeuronSet:
    assert count == prompt().shape[1]
    return top(shares, budgets)


@pytest.fixture(params=["given", "decided"])
def plan(request: pytest.FixtureRequest) -> Any:
    """What slim gets, and the set that it must then decode on."""
    if request.param == "given":
        return lambda model: (some(), some())
    return lambda model: (decide, by_prefill(model, prompt()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["Llama", "Gemma3", "OPT", "GPT2"])
def test_any_way_is_naive_greedy(name: str, way: str, plan: Any) -> None:
    model = build(name)
    given, neurons = plan(model)
    slow = greedy(model, down_modules(model, name), neurons, prompt(), NEW)
    with slim(model, given):
        assert generated(model, prompt(), NEW, **WAYS[way]) == [slow]
        assert generated(model, prompt(), NEW, **WAYS[way]) == [slow]


@pytest.mark.parametrize("name", ["Llama", "Mistral", "Falcon"])
def test_assisted_decoding_is_naive_greedy(name: str, plan: Any) -> None:
    """An assistant that agrees now and then: its candidates stand behind the prompt in the first forward."""
    model, assistant = build(name), build(name)
    head: Any = assistant.get_submodule("lm_head")
    with torch.no_grad():
        head.weight[:40] *= 0.5
    given, neurons = plan(model)
    slow = greedy(model, down_modules(model, name), neurons, prompt(), NEW)
    with slim(model, given):
        assert generated(model, prompt(), NEW, assistant_model=assistant) == [slow]


@families
def test_beams_are_naive_beams(name: str, plan: Any) -> None:
    model = build(name)
    given, neurons = plan(model)
    slow = beams(model, down_modules(model, name), neurons, prompt(), NEW)
    with slim(model, given):
        assert generated(model, prompt(), NEW, num_beams=3) == [slow]


def test_the_prompt_may_be_given_by_any_name() -> None:
    model, ids = build("Llama"), prompt()
    slow = greedy(model, down_modules(model, "Llama"), some(), ids, NEW)
    run: Any = model.generate
    how: dict[str, Any] = {"max_new_tokens": NEW, "do_sample": False, "prefill_chunk_size": 5}
    with slim(model, some()):
        run = model.generate
        assert run(input_ids=ids, **how).tolist() == [slow]
        assert run(inputs=ids, **how).tolist() == [slow]
        assert run(ids, GenerationConfig(**how)).tolist() == [slow]
        embeds = model.get_input_embeddings()(ids)
        assert run(inputs_embeds=embeds, max_new_tokens=NEW, do_sample=False).tolist() == [slow[ids.shape[1] :]]


def test_a_conversation_goes_on_from_its_cache() -> None:
    """What is in the cache stays; the new turn is prompt, and runs dense."""
    model, ids, more = build("Llama"), prompt(), tokens(1, 4, 8)
    how: dict[str, Any] = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True}

    def talk(run: Any, **options: Any) -> list[int]:
        first = run(ids, **how)
        whole = torch.cat([first.sequences, more], 1)
        return list(run(whole, past_key_values=first.past_key_values, **how, **options).sequences[0].tolist())

    with slim(model, some()):
        said = talk(model.generate)
        assert talk(model.generate, prefill_chunk_size=3) == said
    assert len(said) == 12 + 5 + 4 + 5
    core = [12, 13, 14, 15, 21, 22, 23, 24]  # position 16 was made in the first turn and read in the second
    slow = naive(model, down_modules(model, "Llama"), some(), torch.tensor([said[:-1]]), core)
    assert slow[0, 20:].argmax(-1).tolist() == said[21:]


@pytest.mark.parametrize("name", ["assistant_early_exit", "token_healing", "assistant_model"])
def test_a_model_cannot_run_itself_beside_its_decoding(name: str) -> None:
    model = build("Llama")
    value: Any = model if name == "assistant_model" else 1
    ways = (
        [{name: value}]
        if name == "assistant_model"
        else [{name: 1}, {"generation_config": GenerationConfig(**{name: 1})}]
    )
    for way in ways:
        with slim(model, some()), pytest.raises(CoreInferError, match=name):
            generated(model, prompt(), NEW, **way)


def test_a_paged_cache_is_refused() -> None:
    model = build("Llama")
    with slim(model, some()), pytest.raises(CoreInferError, match="paged"):
        model(prompt(), cache=object())


@families
def test_the_decoder_alone_is_slim_too(name: str) -> None:
    model, ids, neurons = build(name), tokens(1, PROMPT + 3), some()
    slow = naive(model, down_modules(model, name), neurons, ids, PROMPT)
    head = model.get_submodule("lm_head")
    plain = logits(model, ids)
    with torch.no_grad(), slim(model, neurons):
        model(ids)  # and whatever ran before does not matter
        model(ids[:, :PROMPT])
        out = model.base_model(ids[:, :PROMPT])
        for at in range(PROMPT, PROMPT + 3):
            out = model.base_model(ids[:, at : at + 1], past_key_values=out.past_key_values)
        hidden = model.base_model(ids).last_hidden_state
    through = logits_of(model, name, head, out.last_hidden_state)
    assert (through - slow[:, -1:]).abs().max() <= 1e-4
    assert (logits_of(model, name, head, hidden) - plain).abs().max() <= 1e-5


def logits_of(model: PreTrainedModel, name: str, head: Any, hidden: Tensor) -> Tensor:
    """What the model makes of its decoder's output."""
    out: Tensor = head(hidden).detach()
    cap = getattr(model.config, "final_logit_softcapping", None)
    return cap * torch.tanh(out / cap) if cap else out


def test_another_thread_may_not_run_a_model_that_generates() -> None:
    model, said = build("Llama"), []

    class Prying:
        def put(self, value: Tensor) -> None:
            def run() -> None:
                try:
                    model(prompt())
                except CoreInferError as error:
                    said.append(str(error))

            other = Thread(target=run)
            other.start()
            other.join()
            found = find_mlps(model)
            said.append(str([mlp.width for mlp in found]))

        def end(self) -> None:
            pass

    with slim(model, some()):
        generated(model, prompt(), 3, streamer=Prying())
    assert said == ["the model is generating in another thread: wait for it, or load the model twice", "[48, 48]"] * 4


def test_mlps_are_full_in_the_middle_of_a_slim_forward() -> None:
    model, seen = build("Llama"), []

    def look(*_: Any) -> None:
        kept = model.get_parameter("model.layers.1.mlp.down_proj.weight").shape[1]
        found = find_mlps(model)
        seen.append((kept, [mlp.width for mlp in found], down_rows(found[1]).shape[0]))

    hook = model.get_submodule("model.layers.0").register_forward_pre_hook(look)
    with slim(model, some()):
        generated(model, prompt(), 2)
    hook.remove()
    assert seen == [(48, [48, 48], 48), (13, [48, 48], 48)]


def test_capture_in_slim_and_slim_in_capture_are_refused() -> None:
    model = build("Llama")
    with (
        slim(model, some()),
        pytest.raises(CoreInferError, match="slim is already open"),
        Capture(model, StatisticSettings()),
    ):
        pass
    with (
        Capture(model, StatisticSettings()),
        pytest.raises(CoreInferError, match="Capture is already open"),
        slim(model, some()),
    ):
        pass
    with slim(model, some()):
        pass


def test_a_model_whose_cache_stays_empty_is_refused() -> None:
    config = RecurrentGemmaConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=1, vocab_size=96,
        intermediate_size=96, lru_width=32, attention_window_size=16, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()  # type: ignore[no-untyped-call]
    neurons = some((9, 9, 9))
    given: tuple[NeuronSet | Decide, ...] = (neurons, lambda shares, count: neurons)
    for plan in given:
        with slim(model, plan), pytest.raises(CoreInferError, match="key-value cache"):
            generated(model, prompt(), 4)
        with slim(model, plan), pytest.raises(CoreInferError, match="key-value cache"):
            model(prompt())
