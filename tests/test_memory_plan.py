"""What fits into a budget: the arithmetic, and that its numbers are the models'."""

import re

import pytest
import torch
from families import LAYERS, WIDTH, build
from hypothesis import assume, given
from hypothesis import strategies as st
from streamed import STREAMED

from coreinfer import CoreInferError
from coreinfer.memory.facts import Facts, facts_of
from coreinfer.memory.plan import Plan
from coreinfer.memory.sizes import parse_size

small, large = st.integers(0, 1 << 20), st.integers(0, 1 << 32)
some_facts = st.builds(
    Facts, embeddings=large, attention=large, rest=large, layers=st.integers(1, 64), width=st.integers(64, 20_000),
    parts=st.integers(2, 3), hidden=st.integers(16, 8192), size=st.sampled_from([2, 4]), fused=st.booleans(),
    position=small, token=small, pair=st.integers(0, 600), once=large, logits=small, context=st.integers(64, 1 << 16),
)  # fmt: skip
texts = st.tuples(st.integers(1, 4096), st.integers(0, 4096)).map(lambda pair: (pair[0], pair[0] + pair[1]))
plans = st.builds(
    Plan,
    some_facts,
    st.integers(1, 1 << 40),
    st.booleans(),
    streamed=st.just(True),
    beside=st.sampled_from([0, 9 << 20]),
)


@given(plans, texts)
def test_what_fits_is_as_much_as_fits(plan: Plan, text: tuple[int, int]) -> None:
    most = plan.most(*text)
    assert most <= plan.facts.neurons
    if most >= 0:
        assert plan.needs(most, *text) <= plan.limit
    if most < plan.facts.neurons:
        assert plan.needs(max(0, most + 1), *text) > plan.limit


@given(plans, texts, st.floats(0.01, 1.0))
def test_a_refusal_names_what_works(plan: Plan, text: tuple[int, int], keep: float) -> None:
    """The memory that it names is enough, and the largest keep fits, whichever way layer budgets are rounded."""
    kept = round(keep * plan.facts.neurons)
    assume(plan.needs(kept, *text) > plan.limit)
    with pytest.raises(CoreInferError) as refusal:
        plan.check(kept, keep, *text)
    said = str(refusal.value)
    assert len(said.splitlines()) == 1
    enough = re.search(r"at least ([0-9.]+ [MG]iB)", said)
    assert enough
    Plan(plan.facts, parse_size(enough[1]), plan.on_gpu, beside=plan.beside).check(kept, keep, *text)
    other = re.search(r"--keep ([0-9.]+) at most", said)
    if other:
        smaller = float(other[1])
        assert 0 < smaller < keep
        plan.check(plan.facts.layers * round(smaller * plan.facts.width), smaller, *text)
    else:
        assert not 0 < plan.most_keep(*text) < keep


@given(plans, texts, st.integers(1, 500))
def test_more_text_and_more_neurons_take_more(plan: Plan, text: tuple[int, int], more: int) -> None:
    prompt, tokens = text
    least = plan.needs(0, prompt, tokens)
    assert plan.needs(more, prompt, tokens) == least + more * plan.facts.neuron
    assert least <= plan.needs(0, prompt, tokens + more) <= plan.needs(0, prompt + more, tokens + more)
    assert least == sum(plan.takes(0, prompt, tokens).values())


@given(plans, texts)
def test_a_whole_model_takes_all_neurons(plan: Plan, text: tuple[int, int]) -> None:
    whole = Plan(plan.facts, plan.limit, plan.on_gpu, streamed=False)
    every, half = plan.facts.neurons, plan.facts.neurons // 2
    assert whole.takes(every, *text)["neurons"] == every * plan.facts.neuron
    beside = 0 if plan.on_gpu else half
    assert whole.takes(half, *text)["neurons"] == (every + beside) * plan.facts.neuron


@pytest.mark.parametrize("name", STREAMED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_facts_are_the_models(name: str, dtype: torch.dtype) -> None:
    """Every weight is counted once, by the model's own parameters."""
    from transformers import AutoModelForCausalLM

    model = build(name).to(dtype)  # type: ignore[arg-type]
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(model.config, dtype=dtype)  # type: ignore[no-untyped-call]
    f = facts_of(empty, dtype)
    matrices = [(n, p) for n, p in model.named_parameters() if p.ndim == 2]
    mlp = sum(p.nbytes for n, p in matrices if "mlp." in n or ".fc" in n)
    attention = sum(p.nbytes for n, p in matrices if "attn" in n)
    assert (f.layers, f.width, f.neurons * f.neuron) == (LAYERS, WIDTH, mlp)
    assert f.attention == attention
    assert f.embeddings == sum(p.nbytes for _, p in matrices) - mlp - attention
    assert f.rest >= sum(p.nbytes for p in model.parameters() if p.ndim < 2)
    ids = torch.zeros(1, 9, dtype=torch.long)
    cache = model(input_ids=ids, use_cache=True).past_key_values
    assert f.position * 9 == sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
