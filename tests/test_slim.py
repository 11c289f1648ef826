"""Slim decoding against slow truths: dense at keep 1, masked activations, naive greedy generation."""

from itertools import pairwise
from threading import Thread
from typing import Any

import pytest
import torch
from families import LAYERS, PAD, WIDTH, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import PROMPT, TOTAL, families, generated, greedy, logits, naive, some, stepwise
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TextIteratorStreamer, pipeline

from coreinfer.errors import CoreInferError
from coreinfer.models import find_mlps, load_model
from coreinfer.neurons import NeuronSet
from coreinfer.slimming import slim

Demo = tuple[PreTrainedModel, PreTrainedTokenizerBase]


def every() -> NeuronSet:
    return some((WIDTH,) * LAYERS)


@families
def test_keep_1_is_dense(name: str) -> None:
    model, ids = build(name), tokens(2, TOTAL)
    dense = stepwise(model, ids, PROMPT)
    with slim(model, every()):
        assert (stepwise(model, ids, PROMPT) - dense).abs().max() <= 1e-5
    with slim(model, every(), prompt_tokens=PROMPT):
        assert (logits(model, ids) - logits(build(name), ids)).abs().max() <= 1e-5


@families
def test_sliced_equals_masked_equals_naive(name: str) -> None:
    model, ids, neurons = build(name), tokens(1, TOTAL), some()
    slow, dense = naive(model, down_modules(model, name), neurons, ids, PROMPT), logits(model, ids)
    with slim(model, neurons):
        sliced = stepwise(model, ids, PROMPT)
    with slim(model, neurons, prompt_tokens=PROMPT):
        masked = logits(model, ids)
    assert (sliced - masked).abs().max() <= 1e-4
    assert (masked - slow).abs().max() <= 1e-4
    assert (sliced[:, :PROMPT] - dense[:, :PROMPT]).abs().max() <= 1e-5, "the prompt runs dense"
    assert (sliced[:, PROMPT:] - dense[:, PROMPT:]).abs().amax(-1).min() > 1e-2, "the set must matter"


@families
def test_generate_is_naive_greedy(name: str) -> None:
    model, ids, neurons = build(name), tokens(1, PROMPT, 5), some()
    slow = greedy(model, down_modules(model, name), neurons, ids, 12)
    with slim(model, neurons):
        assert generated(model, ids) == [slow]
        assert generated(model, ids) == [slow], "a second prompt starts dense again"
    with slim(model, neurons, prompt_tokens=PROMPT):
        assert generated(model, ids, use_cache=False) == [slow]


@families
def test_left_padded_batch_equals_one_by_one(name: str) -> None:
    model, neurons = build(name), some()
    rows = [tokens(1, length, length) for length in (4, 9, 7)]
    batch = torch.cat([torch.cat([torch.full((1, 9 - row.shape[1]), PAD), row], 1) for row in rows])
    with slim(model, neurons):
        alone = [generated(model, row)[0][row.shape[1] :] for row in rows]
        together = generated(model, batch, attention_mask=(batch != PAD).long())
    assert [row[9:] for row in together] == alone


@families
@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_restored(name: str, fails: bool) -> None:
    model, ids = build(name), tokens(1, TOTAL)
    modules, before = dict(model.named_modules()), logits(model, ids)
    try:
        with slim(model, some()):
            stepwise(model, ids, PROMPT)
            generated(model, ids, 2)
            assert list(model.named_modules()) == list(modules.items()), "between calls too"
            if fails:
                raise RuntimeError("stop")
    except RuntimeError:
        assert fails
    assert "generate" not in vars(model)
    assert list(model.named_modules()) == list(modules.items())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert torch.equal(logits(model, ids), before)


@pytest.mark.parametrize("wrong", [some((3, 3), 40), some((3, 3, 3))])
def test_a_set_of_other_widths_is_refused(wrong: NeuronSet) -> None:
    model = build("Llama")
    with pytest.raises(CoreInferError, match="the model has 2 of 48"), slim(model, wrong):
        pass
    assert not any(m._forward_pre_hooks for m in model.modules())


def test_without_a_cache_the_prompt_must_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids = build("Llama"), tokens(1, PROMPT)
    with slim(model, some()), pytest.raises(CoreInferError, match="prompt_tokens"):
        model(ids, use_cache=False)
    monkeypatch.setattr(model.config, "use_cache", False)  # the tests of a family share its config
    with slim(model, some()), pytest.raises(CoreInferError, match="prompt_tokens"):
        model(ids)


def test_a_continuation_needs_its_prompt() -> None:
    model, ids = build("Llama"), tokens(1, PROMPT)
    cache = model(ids, use_cache=True).past_key_values
    with slim(model, some()):
        model(ids[:, :4])  # another prompt's border is not this one's
        with pytest.raises(CoreInferError, match="9 cached tokens but not their prompt: pass prompt_tokens"):
            model(ids[:, :1], past_key_values=cache)


@torch.no_grad()
def test_prompts_may_take_turns() -> None:
    """Each cache has the border of its own prompt."""
    model, neurons = build("Llama"), some()
    texts = {length: tokens(1, length + 3, length) for length in (4, 9)}
    with slim(model, neurons):
        outs = {length: [model(ids[:, :length])] for length, ids in texts.items()}
        for at in range(3):
            for length, ids in texts.items():
                cache, here = outs[length][-1].past_key_values, length + at
                outs[length].append(model(ids[:, here : here + 1], past_key_values=cache))
    for length, ids in texts.items():
        slow = naive(model, down_modules(model, "Llama"), neurons, ids, length)
        assert (torch.cat([out.logits for out in outs[length]], 1) - slow).abs().max() <= 1e-4


def test_slim_in_slim_is_refused() -> None:
    model, ids = build("Llama"), tokens(1, TOTAL)
    before = logits(model, ids)
    with slim(model, some()):
        stepwise(model, ids, PROMPT)
        with pytest.raises(CoreInferError, match="already"), slim(model, some()):
            pass
    assert torch.equal(logits(model, ids), before)


def test_chunks_and_borders_agree_whatever_the_calls() -> None:
    model, ids, neurons = build("Gemma2"), tokens(1, TOTAL), some()
    slow = naive(model, down_modules(model, "Gemma2"), neurons, ids, PROMPT)
    with slim(model, neurons, prompt_tokens=PROMPT), torch.no_grad():
        for cuts in ([0, 4, PROMPT, TOTAL], [0, 4, 14, TOTAL], [0, PROMPT + 1, TOTAL], [0, PROMPT - 1, TOTAL]):
            cache, seen = None, []
            for a, b in pairwise(cuts):
                out = model(input_ids=ids[:, a:b], past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                seen.append(out.logits)
            assert (torch.cat(seen, 1) - slow).abs().max() <= 1e-4


def test_a_prompt_of_no_tokens_leaves_nothing_dense() -> None:
    model, ids, neurons = build("Llama"), tokens(1, TOTAL), some()
    slow = naive(model, down_modules(model, "Llama"), neurons, ids, 0)
    with slim(model, neurons, prompt_tokens=0):
        assert (logits(model, ids) - slow).abs().max() <= 1e-4
    with pytest.raises(CoreInferError, match="prompt_tokens is -1"), slim(model, neurons, prompt_tokens=-1):
        pass


def test_bfloat16_keeps_its_dtype() -> None:
    model, ids = build("Qwen3").bfloat16(), tokens(1, TOTAL)
    with slim(model, some()):
        assert stepwise(model, ids, PROMPT).dtype == torch.bfloat16


@pytest.fixture(scope="module")
def demo() -> Demo:
    return load_model("demo", "float32")


def half(model: PreTrainedModel) -> NeuronSet:
    mlps = find_mlps(model)
    return some((mlps[0].width // 2,) * len(mlps), mlps[0].width)


def expected(demo: Demo, text: str, new: int) -> str:
    model, tokenizer = demo
    ids = tokenizer(text, return_tensors="pt").input_ids
    downs = [mlp.down for mlp in find_mlps(model)]
    out = greedy(model, downs, half(model), ids, new)[ids.shape[1] :]
    return str(tokenizer.decode(out, skip_special_tokens=True))


def test_a_pipeline_works(demo: Demo) -> None:
    model, tokenizer = demo
    text = "The history of the city"
    slow = expected(demo, text, 10)
    pipe: Any = pipeline("text-generation", model=model, tokenizer=tokenizer)  # type: ignore[call-overload]
    with slim(model, half(model)):
        out = pipe(text, max_new_tokens=10, do_sample=False, return_full_text=False)
    assert out[0]["generated_text"] == slow


def test_streaming_works(demo: Demo) -> None:
    model, tokenizer = demo
    text = "Light travels through water"
    inputs = tokenizer(text, return_tensors="pt")
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, timeout=60, skip_special_tokens=True)
    with slim(model, half(model)):
        options = {**inputs, "max_new_tokens": 10, "do_sample": False, "streamer": streamer}
        thread = Thread(target=model.generate, kwargs=options)  # type: ignore[arg-type]
        thread.start()
        pieces = list(streamer)
        thread.join()
    assert len(pieces) > 1
    assert "".join(pieces) == expected(demo, text, 10)
