"""Truth against slow truths: decoding on gathered weights token by token, and sums in plain float64."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import families
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from slow_truths import families as every_family
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.capture import Capture, Reducer, valid_tokens
from coreinfer.errors import CoreInferError
from coreinfer.evaluate import masked
from coreinfer.evaluate.masked import Losses, Truth
from coreinfer.models import find_mlps
from coreinfer.neurons import NeuronSet, top
from coreinfer.settings import StatisticSettings
from coreinfer.slimming import slim

P, C, B = 20, 9, 3  # longer than the sliding windows of the tiny models
BUDGETS = np.array([20, 13])


def ids_of(seed: int = 0) -> Tensor:
    ids = torch.randint(2, families.VOCAB, (B, P + C), generator=torch.Generator().manual_seed(seed))
    ids[:, 0] = families.BOS
    return ids


def sets() -> list[NeuronSet]:
    """Each text has its own."""
    rng = np.random.default_rng(3)
    return [top(rng.random((families.LAYERS, families.WIDTH)), BUDGETS) for _ in range(B)]


def masks() -> NDArray[np.bool_]:
    return np.stack([one.mask() for one in sets()])


@torch.no_grad()
def decoded(model: PreTrainedModel, row: Tensor, neurons: NeuronSet | None) -> Tensor:
    """Log-probabilities (C, V): the prompt in one call, then every token in its own, on gathered weights."""
    every = top(np.ones((families.LAYERS, families.WIDTH)), np.full(families.LAYERS, families.WIDTH))
    with slim(model, neurons or every, prompt_tokens=P):
        out = model(input_ids=row[None, :P], use_cache=True)
        logits = [out.logits[0, -1]]
        for at in range(P, P + C - 1):
            out = model(input_ids=row[None, at : at + 1], past_key_values=out.past_key_values, use_cache=True)
            logits.append(out.logits[0, -1])
    return torch.stack(logits).double().log_softmax(-1)


def slow_losses(model: PreTrainedModel, ids: Tensor) -> tuple[list[Any], list[Any], list[Any]]:
    """Rise, KL and agreement by loops over the vocabulary's probabilities."""
    rises, kls, agrees = [], [], []
    for row, neurons in zip(ids, sets(), strict=True):
        dense, sparse = (decoded(model, row, which).numpy() for which in (None, neurons))
        wanted = row[P:].tolist()
        rises.append([dense[t, w] - sparse[t, w] for t, w in enumerate(wanted)])
        kls.append([sum(np.exp(p) * (p - q) for p, q in zip(dense[t], sparse[t], strict=True)) for t in range(C)])
        agrees.append([float(dense[t].argmax() == sparse[t].argmax()) for t in range(C)])
    return rises, kls, agrees


def check_against_slow(model: PreTrainedModel) -> None:
    ids = ids_of()
    truth = Truth(model, find_mlps(model), ids, P)
    got = truth.losses(masks())
    assert truth.rises(masks()) == pytest.approx(got.nll_rise, abs=1e-6)
    for fast, slow in zip((got.nll_rise, got.kl, got.agree), slow_losses(model, ids), strict=True):
        assert fast.dtype == np.float32
        assert fast == pytest.approx(np.array(slow), abs=2e-5)


@every_family
def test_losses_are_those_of_decoding_on_gathered_weights(name: str) -> None:
    check_against_slow(families.build(name))


def test_an_unsliced_continuation_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def nothing(*_: Any) -> Iterator[None]:
        yield

    monkeypatch.setattr(masked, "_masked", nothing)
    with pytest.raises(AssertionError):
        check_against_slow(families.build("Llama"))


@every_family
def test_the_dense_loss_is_one_plain_forward(name: str) -> None:
    model, ids = families.build(name), ids_of()
    with torch.no_grad():
        logs = model(input_ids=ids).logits[:, P - 1 : -1].log_softmax(-1)
    slow = -logs.gather(-1, ids[:, P:, None])[..., 0].numpy()
    assert Truth(model, find_mlps(model), ids, P).nll == pytest.approx(slow, abs=2e-5)


def test_the_mask_of_everything_costs_nothing() -> None:
    model = families.build("Llama")
    got = Truth(model, find_mlps(model), ids_of(), P).losses(np.ones_like(masks()))
    assert (np.abs(got.nll_rise).max(), got.kl.max(), got.agree.min()) == (0, 0, 1)


def test_the_first_token_is_predicted_dense() -> None:
    model = families.build("Llama")
    got = Truth(model, find_mlps(model), ids_of(), P).losses(np.zeros_like(masks()))
    assert (got.nll_rise[:, 0] == 0).all()
    assert (got.kl[:, 0] == 0).all()
    assert (got.agree[:, 0] == 1).all()
    assert (got.nll_rise[:, 1:] != 0).all()


def test_a_dense_and_a_masked_prompt_are_not_the_same() -> None:
    """Had the mask reached the prompt, every loss would be another."""
    model, ids = families.build("Llama"), ids_of()
    right = Truth(model, find_mlps(model), ids, P).losses(masks()).nll_rise
    wrong = Truth(model, find_mlps(model), ids, P)
    with masked._masked(wrong.mlps, masks(), wrong.prompt), torch.inference_mode():
        wrong._cache = masked._forward(model, wrong.prompt, None, 1).past_key_values
    assert np.abs(wrong.losses(masks()).nll_rise - right)[:, 1:].min() > 1e-6


def test_some_rows_with_masks_of_their_own() -> None:
    model = families.build("Gemma3")
    truth = Truth(model, find_mlps(model), ids_of(), P)
    whole, some = truth.losses(masks()), truth.losses(masks()[[2, 0, 2]], [2, 0, 2])
    for part in Losses.__annotations__:
        assert getattr(some, part) == pytest.approx(getattr(whole, part)[[2, 0, 2]], abs=1e-5)


def test_scoring_twice_is_the_same_and_leaves_no_hook() -> None:
    model = families.build("Llama")
    truth = Truth(model, find_mlps(model), ids_of(), P)
    assert (truth.losses(masks()).nll_rise == truth.losses(masks()).nll_rise).all()
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("kind", ["energy", "count"])
def test_statistics_are_those_of_each_part(kind: Any) -> None:
    model, ids = families.build("Llama"), ids_of()
    mlps, settings = find_mlps(model), StatisticSettings(kind)
    (got,) = Truth(model, mlps, ids, P, [Reducer(mlps, settings)]).statistics
    at, parts = torch.arange(P + C).expand(B, -1), []
    for valid in (valid_tokens(ids, None, families.BOS) & (at < P), (at >= P) & (at < P + C - 1)):
        with Capture(model, settings) as capture, torch.no_grad():
            capture.expect(valid)
            model(input_ids=ids)
            parts.append(capture.shares())
    assert got.tokens.tolist() == [P - 1] * B  # beginning-of-text says nothing
    assert got.prompt == pytest.approx(parts[0], rel=1e-3, abs=1e-6)
    assert got.continuation == pytest.approx(parts[1], rel=1e-3, abs=1e-6)


def test_the_model_is_needed_alone() -> None:
    model = families.build("Llama")
    truth = Truth(model, find_mlps(model), ids_of(), P)
    with slim(model, sets()[0]), pytest.raises(CoreInferError, match="slim is already open"):
        truth.losses(masks())
