"""Capture in a padded batch against text by text, and against activations recorded by plain hooks."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, PAD, build, down_modules, tokens
from families import one_thread as one_thread
from numpy.typing import NDArray
from test_statistic import slow_core
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from coreinfer.capture import Capture, valid_tokens
from coreinfer.models import find_mlps, load_model
from coreinfer.settings import StatisticSettings

KINDS = [StatisticSettings(), StatisticSettings("count", 0.3), StatisticSettings("count", 0.5, "positive")]
LENGTHS = (5, 21, 12)


def texts() -> list[Tensor]:
    """Ids of three texts of unequal length, each behind a beginning-of-text."""
    made = [tokens(1, length, seed)[0] for seed, length in enumerate(LENGTHS)]
    return [torch.cat([torch.tensor([BOS]), ids]) for ids in made]


def padded(rows: list[Tensor], left: bool) -> tuple[Tensor, Tensor]:
    """ids and attention mask (B, T)"""
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), PAD), torch.zeros(len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(longest - len(row), None) if left else slice(0, len(row))
        ids[i, where], mask[i, where] = row, 1
    return ids, mask


def run(model: PreTrainedModel, settings: StatisticSettings, ids: Tensor, **kwargs: Tensor) -> NDArray[np.float64]:
    with torch.no_grad(), Capture(model, settings) as capture:
        capture.expect(valid_tokens(ids, kwargs.get("attention_mask"), BOS))
        model(input_ids=ids, **kwargs)
        return capture.shares()


def slow_shares(model: PreTrainedModel, name: str, ids: Tensor, settings: StatisticSettings) -> list[list[float]]:
    """One text's shares (L, F) in Python loops over plainly recorded activations, the first token left out."""
    seen: dict[int, Tensor] = {}

    def keeper(layer: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        return lambda module, args: seen.__setitem__(layer, args[0].detach().reshape(len(ids), -1))

    downs = down_modules(model, name)
    hooks = [down.register_forward_pre_hook(keeper(i)) for i, down in enumerate(downs)]
    with torch.no_grad():
        model(input_ids=ids[None])
    for hook in hooks:
        hook.remove()
    out = []
    for layer, down in enumerate(downs):
        rows: list[list[float]] = seen[layer][1:].tolist()
        weight: Tensor = down.weight  # type: ignore[assignment]
        norms = (weight.double() ** 2).sum(1 if isinstance(down, Conv1D) else 0).tolist()
        if settings.kind == "energy":
            sums = [norm * sum(row[i] ** 2 for row in rows) for i, norm in enumerate(norms)]
        else:
            core = [slow_core(row, settings.token_fraction, settings.mode) for row in rows]
            sums = [float(sum(row[i] for row in core)) for i in range(len(norms))]
        out.append([x / math.fsum(sums) for x in sums])
    return out


@pytest.mark.parametrize("settings", KINDS, ids=["energy", "magnitude", "positive"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_padded_batch_equals_brute_force_text_by_text(name: str, settings: StatisticSettings) -> None:
    model, rows = build(name), texts()
    ids, mask = padded(rows, left=False)
    batch = run(model, settings, ids, attention_mask=mask)
    for got, row in zip(batch, rows, strict=True):
        alone = run(model, settings, row[None])[0]
        assert got == pytest.approx(alone, rel=1e-3, abs=1e-6)
        assert alone == pytest.approx(np.array(slow_shares(model, name, row, settings)), rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_left_padding_equals_right_padding(name: str) -> None:
    model, rows = build(name), texts()
    ids, mask = padded(rows, left=True)
    places = {} if name == "OPT" else {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)}  # OPT counts by itself
    left = run(model, StatisticSettings(), ids, attention_mask=mask, **places)
    ids, mask = padded(rows, left=False)
    assert left == pytest.approx(run(model, StatisticSettings(), ids, attention_mask=mask), rel=1e-3, abs=1e-6)


def test_gradients_do_not_matter() -> None:
    model, ids = build("Llama"), tokens(2, 9)
    with Capture(model, StatisticSettings()) as capture:
        capture.expect(valid_tokens(ids, None, BOS))
        model(ids)
        got = capture.shares()
        assert not any(s is not None and s.requires_grad for s in capture._sums)
        assert not capture.columns.requires_grad
    assert got == pytest.approx(run(model, StatisticSettings(), ids))


def test_hooks_are_gone_afterwards() -> None:
    model, ids = build("OPT"), tokens(1, 9)
    with Capture(model, StatisticSettings()) as capture:
        capture.expect(valid_tokens(ids, None, BOS))
        model(ids)
    assert not any(module._forward_pre_hooks for module in model.modules())
    with pytest.raises(RuntimeError, match="stop"), Capture(model, StatisticSettings()):
        raise RuntimeError("stop")
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_valid_tokens_leave_out_padding_and_beginning_of_text() -> None:
    ids = torch.tensor([[1, 5, 6], [0, 1, 7], [0, 0, 1]])
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]])
    assert valid_tokens(ids, mask, 1).int().tolist() == [[0, 1, 1], [0, 0, 1], [0, 0, 1]]
    assert valid_tokens(ids, None, None).all()


def test_the_demo_in_bfloat16_is_close_to_float32() -> None:
    (exact, tokenizer), (rough, _) = load_model("demo", "float32"), load_model("demo", "bfloat16")
    ids = tokenizer("The cell divides and its chromosomes are copied.", return_tensors="pt").input_ids
    a, b = (run(model, StatisticSettings(), ids) for model in (exact, rough))
    assert np.abs(a - b).sum(-1).max() < 0.1


@pytest.mark.parametrize("settings", KINDS, ids=["energy", "magnitude", "positive"])
@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_prompt_that_gives_no_numbers_ranks_nothing(settings: StatisticSettings, odd: float) -> None:
    model: Any = build("Llama")
    find_mlps(model)  # tries them out
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda module, args: (args[0] * odd,))
    shares = run(model, settings, tokens(1, 9))
    hook.remove()
    assert len(set(shares[0, 0])) > 1
    assert set(shares[0, 1]) == {1 / shares.shape[2]}
