"""Texts packed behind each other against each text alone, in every family; how they share rows."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES, LAYERS, WIDTH, build
from families import one_thread as one_thread
from hypothesis import given
from hypothesis import strategies as st
from test_record import as_text, recorder, some_ids

from coreinfer.packed import STEP, TEXTS, TOKENS, Row, packing, together
from coreinfer.threads import running_on

REFUSED = ("Mistral", "Gemma2", "Gemma3")  # a window, or scores that are capped
LENGTHS = (5, 33, 1, 18)


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    return [torch.randint(2, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in (*REFUSED, "Falcon")])
def test_a_packed_forward_is_each_text_alone(name: str) -> None:
    model: Any = build(name).base_model
    before = model.config._attn_implementation
    texts = rows_of()
    row = Row.of(texts)
    with torch.no_grad(), packing(model):
        got = model(**row.inputs(), use_cache=False)[0][0]
    assert model.config._attn_implementation == before
    for text, begin in zip(texts, row.starts.tolist(), strict=False):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([text]))[0][0]
        assert torch.allclose(got[begin : begin + len(text)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", REFUSED)
def test_attention_of_another_kind_is_refused(name: str) -> None:
    model: Any = build(name).base_model
    with pytest.raises(NotImplementedError, match="attention with s"), torch.no_grad(), packing(model):
        model(**Row.of(rows_of()).inputs(), use_cache=False)
    assert model.config._attn_implementation != "coreinfer_packed"


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200))
def test_every_text_is_in_one_row_within_the_budget(sizes: list[int]) -> None:
    rows = together(np.array(sizes))
    assert sorted(i for row in rows for i in row.tolist()) == list(range(len(sizes)))
    for row in rows:
        assert len(row) == 1 or (sum(sizes[i] for i in row) <= TOKENS and len(row) <= TEXTS)
    full = [sum(sizes[i] for i in row) for row in rows if len(row) < TEXTS]
    assert all(a + b > TOKENS for a, b in combinations(full, 2))  # no two rows fit into one


@given(st.lists(st.lists(st.integers(2, 90), min_size=1, max_size=50), min_size=1, max_size=6))
def test_a_row_holds_its_texts_and_little_else(texts: list[list[int]]) -> None:
    row = Row.of(texts)
    size = row.ids.shape[1]
    assert size % STEP == 0
    assert 0 <= size - sum(map(len, texts)) < STEP
    for text, begin in zip(texts, row.starts.tolist(), strict=False):
        assert row.ids[0, begin : begin + len(text)].tolist() == text
        assert row.positions[0, begin : begin + len(text)].tolist() == list(range(len(text)))
    assert row.spans[0] == 0
    assert row.spans[-1] == size
    assert row.spans == sorted(set(row.spans))


def test_recording_ends_at_the_last_activations() -> None:
    runs, seen = recorder("Llama"), list[str]()
    model: Any = runs.model.base_model
    assert runs.shape == (LAYERS, WIDTH)  # its MLPs are tried out now, not below
    hooks = [
        module.register_forward_hook(lambda module, args, out, name=name: seen.append(name))
        for name, module in (("first down", model.layers[0].mlp.down_proj), ("up", model.layers[-1].mlp.up_proj),
                             ("last down", model.layers[-1].mlp.down_proj), ("norm", model.norm))
    ]  # fmt: skip
    for _ in runs.shares(["w4 w5 w6"]):
        pass
    for hook in hooks:
        hook.remove()
    assert seen == ["first down", "up"]


def test_shares_are_the_same_again() -> None:
    """Bit for bit, whatever was recorded in between and on however many threads."""
    runs, texts = recorder("Llama"), [as_text(row) for row in some_ids(40)]
    first = [shares for _, shares, _ in runs.shares(texts)]
    for _ in runs.shares(texts[:7]):
        pass
    with running_on(2):
        again = [shares for _, shares, _ in runs.shares(texts)]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
