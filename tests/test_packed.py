"""Texts packed behind each other against each text alone, in every family; how they share rows."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, build
from families import one_thread as one_thread
from hypothesis import given
from hypothesis import strategies as st
from test_record import as_text, recorder, some_ids

from coreinfer import packed
from coreinfer.capture import valid_in_row, valid_tokens
from coreinfer.packed import STEP, TEXTS, TOKENS, Row, packing, packs, together
from pipeline.record import Recorder

APART = ("Gemma2", "Falcon")  # one caps its scores, the other has an attention of its own
LENGTHS = (5, 33, 1, 18)  # one is longer than the families' windows


def rows_of(lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    return [torch.randint(2, 96, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_packed_forward_is_each_text_alone(name: str) -> None:
    model = build(name).base_model
    before = model.config._attn_implementation
    assert packs(model) == (name not in APART)
    assert model.config._attn_implementation == before
    if name in APART:
        return
    texts = rows_of()
    row = Row.of(texts)
    with torch.no_grad(), packing(model):
        got = model(**row.inputs(), use_cache=False)[0][0]
    for text, begin in zip(texts, row.starts.tolist(), strict=False):
        with torch.no_grad():
            alone = model(input_ids=torch.tensor([text]))[0][0]
        assert torch.allclose(got[begin : begin + len(text)], alone, rtol=1e-4, atol=1e-5)


def test_an_attention_that_is_not_known_is_no_packed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were texts to see each other, it would be noticed."""
    model = build("Llama").base_model

    def blind(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **others: Any) -> Any:
        made = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        return made.transpose(1, 2), None

    monkeypatch.setitem(packed.AttentionInterface._global_mapping, packed.NAME, blind)
    assert not packs(model)


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=200))
def test_every_text_is_in_one_row_within_the_budget(sizes: list[int]) -> None:
    rows = together(np.array(sizes))
    assert sorted(i for row in rows for i in row.tolist()) == list(range(len(sizes)))
    for row in rows:
        assert len(row) == 1 or (sum(sizes[i] for i in row) <= TOKENS and len(row) <= TEXTS)
    full = [sum(sizes[i] for i in row) for row in rows if len(row) < TEXTS]
    assert all(a + b > TOKENS for a, b in pairwise(full))  # no two rows fit into one


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


@given(st.lists(st.lists(st.integers(BOS, 3), min_size=1, max_size=5), min_size=1, max_size=6))
def test_the_same_tokens_count_as_in_a_batch(texts: list[list[int]]) -> None:
    row = Row.of(texts)
    got = valid_in_row(row.ids, row.starts, BOS)[0]
    assert not got[row.starts[-1] :].any()
    for text, begin in zip(texts, row.starts.tolist(), strict=False):
        assert got[begin : begin + len(text)].tolist() == valid_tokens(torch.tensor([text]), None, BOS)[0].tolist()


def computed(runs: Recorder, texts: list[str]) -> int:
    """Tokens that went through the first layer while these were recorded; the model was tried out before."""
    seen = list[int]()
    packs(runs.model.base_model)
    first = runs.model.base_model.layers[0]
    hook = first.register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0] * args[0].shape[1]))
    for _ in runs.shares(texts):
        pass
    hook.remove()
    return sum(seen)


def test_recording_computes_no_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, ids = recorder("Llama"), some_ids(120)
    tokens = sum(map(len, ids))
    texts = [as_text(row) for row in ids]
    rows = -(-len(ids) // TEXTS)
    assert tokens <= computed(runs, texts) < tokens + rows * STEP
    monkeypatch.setattr("pipeline.record.packs", lambda model: False)
    assert computed(runs, texts) > tokens + rows * STEP  # padded, it does


def test_recording_ends_at_the_last_activations() -> None:
    runs, seen = recorder("Llama"), list[str]()
    model = runs.model.base_model
    packs(model)
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


def test_packed_shares_are_the_same_again() -> None:
    """Bit for bit, whatever was recorded in between and on however many threads."""
    runs, texts = recorder("Llama"), [as_text(row) for row in some_ids(40)]
    first = [shares for _, shares, _ in runs.shares(texts)]
    for _ in runs.shares(texts[:7]):
        pass
    torch.set_num_threads(2)
    again = [shares for _, shares, _ in runs.shares(texts)]
    torch.set_num_threads(1)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
