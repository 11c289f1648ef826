"""Slim decoding on a set that is decided in prefill, from the prompt's own statistic."""

import numpy as np
import pytest
import torch
from families import BOS, HIDDEN, build, down_modules, tokens
from families import one_thread as one_thread
from numpy.typing import NDArray
from slow_truths import PROMPT, TOTAL, families, generated, greedy, logits, naive, some
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from coreinfer.capture import Capture, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.neurons import NeuronSet, top
from coreinfer.settings import StatisticSettings
from coreinfer.slimming import slim


class Decision:
    """Top neurons of the prompt's statistic; remembers what it was given."""

    def __init__(self) -> None:
        self.calls: list[tuple[NDArray[np.float64], int]] = []

    def __call__(self, shares: NDArray[np.float64], count: int) -> NeuronSet:
        self.calls.append((shares, count))
        return top(shares, np.array([20, 13]))


def captured(model: PreTrainedModel, ids: Tensor, settings: StatisticSettings) -> NDArray[np.float64]:
    with torch.no_grad(), Capture(model, settings) as capture:
        capture.expect(valid_tokens(ids, None, BOS))
        model(ids)
        shares: NDArray[np.float64] = capture.shares()[0]
    return shares


@families
@pytest.mark.parametrize("settings", [StatisticSettings(), StatisticSettings("count", 0.3)], ids=["energy", "count"])
def test_a_set_decided_in_prefill(name: str, settings: StatisticSettings) -> None:
    model, ids, decide = build(name), torch.cat([torch.tensor([[BOS]]), tokens(1, PROMPT)], 1), Decision()
    shares = captured(model, ids, settings)
    slow = greedy(model, down_modules(model, name), top(shares, np.array([20, 13])), ids, 8)
    with slim(model, decide, statistic=settings):
        assert generated(model, ids, 8) == [slow]
    assert len(decide.calls) == 1
    assert decide.calls[0][1] == PROMPT, "beginning-of-text does not count"
    assert decide.calls[0][0] == pytest.approx(shares)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["Llama", "Gemma3", "Mistral"])
def test_a_static_cache_works(name: str) -> None:
    model, ids, decide = build(name), tokens(1, PROMPT), Decision()
    slow = greedy(model, down_modules(model, name), some(), ids, 8)
    with slim(model, some()):
        assert generated(model, ids, 8, cache_implementation="static") == [slow]
    decided = top(captured(model, ids, StatisticSettings()), np.array([20, 13]))
    slow = greedy(model, down_modules(model, name), decided, ids, 8)
    with slim(model, decide):
        assert generated(model, ids, 8, cache_implementation="static") == [slow]


def test_a_decision_sees_a_positional_padding_mask() -> None:
    model, ids, decide = build("Llama"), tokens(1, PROMPT), Decision()
    mask = torch.tensor([[1] * 6 + [0] * 3])
    with slim(model, decide), torch.no_grad():
        model(ids, mask)
    assert decide.calls[0][1] == 6
    assert decide.calls[0][0] == pytest.approx(captured(model, ids[:, :6], StatisticSettings()), rel=1e-3, abs=1e-6)


def test_a_decision_refuses_several_prompts_and_half_a_prompt() -> None:
    model = build("Llama")
    with slim(model, Decision()), pytest.raises(CoreInferError, match="one prompt"):
        model(tokens(2, 5))
    with slim(model, Decision(), prompt_tokens=9), pytest.raises(CoreInferError, match="in one forward"):
        model(tokens(1, 5))
    with slim(model, Decision()), pytest.raises(CoreInferError, match="by input_ids"):
        model(inputs_embeds=torch.zeros(1, 5, HIDDEN))


def test_each_prompt_has_its_own_set() -> None:
    model, decide = build("Llama"), Decision()
    prompts, sets, texts = [tokens(1, PROMPT, 1), tokens(1, PROMPT, 2)], [], []
    for ids in prompts:
        sets.append(top(captured(model, ids, StatisticSettings()), np.array([20, 13])))
        texts.append(greedy(model, down_modules(model, "Llama"), sets[-1], ids, 8))
    assert sets[0] != sets[1]
    with slim(model, decide):
        assert [generated(model, ids, 8)[0] for ids in (*prompts, prompts[1])] == [*texts, texts[1]]
    assert len(decide.calls) == 2, "the same prompt has the same set"


@torch.no_grad()
def test_a_cache_of_another_prompt_is_refused() -> None:
    model, ids = build("Llama"), tokens(1, PROMPT)
    outside = model(ids).past_key_values
    for told in (None, PROMPT):
        with slim(model, Decision(), prompt_tokens=told):
            earlier = model(ids).past_key_values
            later = model(tokens(1, PROMPT, 5)).past_key_values
            model(ids[:, :1], past_key_values=later)
            for cache in (outside, earlier):
                with pytest.raises(CoreInferError, match="not their prompt: run the prompt inside it"):
                    model(ids[:, :1], past_key_values=cache)
    with slim(model, Decision()), pytest.raises(CoreInferError, match="9 of its tokens are in a cache"):
        generated(model, torch.cat([ids, ids], 1), 4, past_key_values=model(ids).past_key_values)


def test_a_text_in_one_forward_is_decided_on_its_prompt() -> None:
    model, ids, decide = build("Phi3"), tokens(1, TOTAL), Decision()
    decided = top(captured(model, ids[:, :PROMPT], StatisticSettings()), np.array([20, 13]))
    with slim(model, decide, prompt_tokens=PROMPT):
        whole = logits(model, ids, use_cache=False)
    assert (whole - naive(model, down_modules(model, "Phi3"), decided, ids, PROMPT)).abs().max() <= 1e-4
    assert decide.calls[0][1] == PROMPT


@torch.no_grad()
def test_a_prompt_whose_decision_failed_has_no_continuation() -> None:
    model, ids = build("Llama"), tokens(1, PROMPT)
    cache = DynamicCache(config=model.config)

    def fail(shares: NDArray[np.float64], count: int) -> NeuronSet:
        raise RuntimeError("no set")

    with slim(model, fail):
        with pytest.raises(RuntimeError, match="no set"):
            model(ids, past_key_values=cache)
        with pytest.raises(CoreInferError, match="not their prompt"):
            model(ids[:, :1], past_key_values=cache)


def test_a_failing_decision_leaves_the_model_whole() -> None:
    model, ids = build("Llama"), tokens(1, 5)
    before = logits(model, ids)
    with pytest.raises(CoreInferError, match="48"), slim(model, lambda shares, count: some((3, 3), 40)):
        logits(model, ids)
    assert torch.equal(logits(model, ids), before)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
