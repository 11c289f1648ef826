"""Settings that check themselves, the rates they make, and what the priors forget."""

from typing import Any

import pytest
import torch
from families import build

from coreinfer.errors import CoreInferError
from pipeline.adapt.optimizer import make_optimizer, rate_at, trained
from pipeline.adapt.priors import Priors
from pipeline.adapt.settings import MaskSettings, PriorSettings, TrainSettings


def test_rates_rise_stay_and_fall() -> None:
    wanted = TrainSettings(steps=10_000, rate=2e-3)
    rates = [rate_at(step, wanted) for step in range(10_000)]
    assert rates[0] == pytest.approx(2e-3 / 200)
    assert rates[:200] == sorted(rates[:200])
    assert rates[199:3000] == pytest.approx([2e-3] * 2801)
    assert rates[3000:] == sorted(rates[3000:], reverse=True)
    assert (rates[6500], rates[-1]) == pytest.approx((1e-3, 4e-5))
    assert rate_at(1, TrainSettings(steps=10)) == TrainSettings().full_rate == 2e-5  # a short warm-up
    assert TrainSettings(lora=4).full_rate == 2e-4


def test_norms_do_not_decay() -> None:
    model = build("Llama")
    matrices, vectors = make_optimizer(list(trained(model).values()), TrainSettings(weight_decay=0.6)).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.6, 0.0)
    assert {p.ndim for p in matrices["params"]} == {2}
    assert {p.ndim for p in vectors["params"]} == {1}
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("record", "given", "words"),
    [
        (MaskSettings, {"least": 0.0}, "keep is 0"),
        (MaskSettings, {"least": 0.6}, "the keeps go from 0.6 to 0.55"),
        (MaskSettings, {"share": 2.0}, "'share' is 2"),
        (MaskSettings, {"stability": 0.6, "hybrid": 0.6}, "together is 1.2"),
        (MaskSettings, {"shortest": 300}, "the prompt lengths go from 300"),
        (PriorSettings, {"clusters": 0}, "--clusters is 0"),
        (PriorSettings, {"rate": float("nan")}, "rate is nan"),
        (TrainSettings, {"distill": -1.0}, "--distill is -1"),
        (TrainSettings, {"rate": float("nan")}, "--rate is nan"),
        (TrainSettings, {"batch": 6, "micro": 4}, "--micro 4"),
        (TrainSettings, {"steps": 0}, "--steps is 0"),
        (TrainSettings, {"weight_decay": -1.0}, "--weight-decay is -1"),
    ],
)
def test_settings_check_themselves(record: Any, given: dict[str, Any], words: str) -> None:
    with pytest.raises(CoreInferError, match=words):
        record(**given)


def test_priors_forget_by_weight() -> None:
    priors, seen = Priors(1, 2, 4, 0.02, "cpu"), torch.eye(4)[None, :2]
    weights = torch.tensor([[[1.0, 0.0], [0.5, 0.0]]])
    priors.learn([seen], weights, torch.tensor([[True, True]]))
    forget = 1 - 0.98**1.5
    mean = (seen[0, 0] + 0.5 * seen[0, 1]) / 1.5
    assert torch.allclose(priors.shares[0, 0], (1 - forget) * torch.full((4,), 0.25) + forget * mean, atol=1e-6)
    before = priors.shares.clone()
    priors.learn([seen], weights, torch.tensor([[False, False]]))
    assert torch.equal(priors.shares, before)
