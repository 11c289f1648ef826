"""The dense pass and the cost of sets, on tiny models of several families, against a text at a time and plain loops."""

from copy import deepcopy
from typing import Any

import families
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from plain_sets import dice, members, unpacked
from slow_truths import logits, naive
from torch import Tensor
from transformers import PreTrainedModel

from coreinfer.errors import CoreInferError
from coreinfer.evaluate.plan import Text
from coreinfer.neurons import NeuronSet, top
from coreinfer.statistic import core_tokens
from pipeline.analysis import observe as observing
from pipeline.analysis.observe import Observed, observe
from pipeline.analysis.plan import Plan
from pipeline.analysis.quality import cost

PLAN = Plan(alpha=0.3, keep=0.25, prompt_tokens=8, continuation_tokens=12)
LENGTHS = (45, 20, 41, 23, 64)
GROWTHS = [(8, 8), (8, 32)]  # what fits the tiny models' context of 64
NEURONS = round(0.25 * families.WIDTH)


def rows() -> list[NDArray[np.int32]]:
    """Texts of several lengths, each with a beginning-of-text in front."""
    made = [families.tokens(1, length, seed)[0].numpy().astype(np.int32) for seed, length in enumerate(LENGTHS)]
    return [np.concatenate([[families.BOS], row[1:]]).astype(np.int32) for row in made]


def activations(model: PreTrainedModel, name: str, ids: NDArray[np.int32]) -> list[Tensor]:
    """(T, F) of each layer, of one text alone."""
    seen: list[Tensor] = []
    downs = families.down_modules(model, name)
    hooks = [d.register_forward_pre_hook(lambda _, args: seen.append(args[0].reshape(len(ids), -1))) for d in downs]
    logits(model, torch.from_numpy(ids.astype(np.int64))[None])
    for hook in hooks:
        hook.remove()
    return seen


def best(score: NDArray[np.float64]) -> set[int]:
    return {int(i) for i in top(score[None], np.array([NEURONS])).layers[0]}


class Slow:
    """One text: its words' core sets, and the core set of any beginning."""

    def __init__(self, model: PreTrainedModel, name: str, ids: NDArray[np.int32], alpha: float = PLAN.alpha) -> None:
        self.layers = [a[1:] for a in activations(model, name, ids)]  # without the beginning-of-text
        core = [core_tokens(a, alpha, "magnitude").numpy() for a in self.layers]
        self.words = [[members(row) for row in each[: PLAN.length - 1]] for each in core]
        self.core = core
        downs: list[Any] = families.down_modules(model, name)
        squares = [module.weight.detach().double().square() for module in downs]
        self.columns = [each.sum(1 if name == "GPT2" else 0) for each in squares]  # Conv1D lies the other way round

    def sets(self, tokens: int) -> list[list[set[int]]]:
        """By count and by energy, a set a layer, of the first ``tokens``."""
        counts = [best(each[: tokens - 1].sum(0).astype(float)) for each in self.core]
        squares = [
            a[: tokens - 1].double().square().mean(0) * c for a, c in zip(self.layers, self.columns, strict=True)
        ]
        return [counts, [best(each.numpy()) for each in squares]]


def mean_dice(a: list[set[int]], b: list[set[int]]) -> float:
    return float(np.mean([dice(x, y) for x, y in zip(a, b, strict=True)]))


def check(found: Observed, slow: list[Slow]) -> None:
    for i, one in enumerate(slow):
        for d, value in zip(PLAN.distances, found.near[i], strict=True):
            laps = [dice(s[t], s[t + d]) for s in one.words for t in range(len(s) - d)]
            assert value == pytest.approx(np.mean(laps))
        for n, value in zip(PLAN.windows, found.used[i], strict=True):
            groups = [s[at : at + n] for s in one.words for at in range(0, len(s) - n + 1, n)]
            assert value == pytest.approx(np.mean([len(set().union(*g)) / families.WIDTH for g in groups]))
        for g, (prompt, more) in enumerate(GROWTHS):
            if LENGTHS[i] < prompt + more:
                assert np.isnan(found.stable[i, :, g]).all()
                continue
            before, after = one.sets(prompt), one.sets(prompt + more)
            laps = [mean_dice(a, b) for a, b in zip(before, after, strict=True)]
            assert found.stable[i, :, g] == pytest.approx(laps)
        for bits, wanted in zip(found.sets[i], one.sets(PLAN.length), strict=True):
            assert [unpacked(layer) for layer in bits] == wanted


@pytest.mark.parametrize("name", ["OPT", "Llama", "GPT2", "Phi3"])
def test_what_is_observed_is_what_a_text_alone_shows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "BATCH", 3)
    model, ticks = families.build(name), list[int]()
    found = observe(model, rows(), PLAN, ticks.append)
    slow = [Slow(model, name, row) for row in rows()]
    check(found, slow)
    assert ticks == [3, 2]
    for i, other in enumerate([2, 0, 1, 4, 3]):  # the neighbour in its batch
        pairs = zip(slow[i].words, slow[other].words, strict=True)
        assert found.apart[i] == pytest.approx(
            np.mean([dice(a, b) for s, t in pairs for a, b in zip(s, t, strict=True)])
        )


def test_batches_and_the_number_of_texts_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets are kept of the first ``PAIRED`` texts only: memory does not grow with the others."""
    model, whole = families.build("Llama"), observe(families.build("Llama"), rows(), PLAN)
    monkeypatch.setattr(observing, "BATCH", 2)
    monkeypatch.setattr(observing, "PAIRED", 3)
    found = observe(model, rows(), PLAN)
    assert found.sets.tolist() == whole.sets[:3].tolist()
    for name in ("near", "used", "stable"):
        assert getattr(found, name) == pytest.approx(getattr(whole, name), nan_ok=True)


def test_the_model_is_left_as_it_was() -> None:
    model = families.build("Llama")
    observe(model, rows(), PLAN)
    assert not any(down._forward_pre_hooks for down in families.down_modules(model, "Llama"))


def test_long_texts_are_read_to_the_end_of_the_context() -> None:
    model = families.build("Llama")
    assert observing.most_tokens(model, PLAN) == families.CONTEXT
    model.config = deepcopy(model.config)  # the other tests' too
    model.config.max_position_embeddings = 4096
    assert observing.most_tokens(model, PLAN) == 512
    assert observing.most_tokens(model, Plan(prompt_tokens=700)) == 828


def texts() -> list[Text]:
    return [Text(f"text {i}", row) for i, row in enumerate(rows())]


@pytest.mark.parametrize("name", ["OPT", "Llama"])
def test_costs_are_those_of_the_prompts_counts(name: str) -> None:
    model, downs = families.build(name), families.down_modules(families.build(name), name)
    downs = families.down_modules(model, name)
    plan = Plan(0.3, 1.0, prompt_tokens=8, continuation_tokens=12)
    nll, rises = cost(model, texts(), plan)
    free = [plan.points.index((alpha, 1.0)) for alpha in plan.alphas]
    assert rises[:, free] == pytest.approx(0, abs=1e-6)  # keep 1 is dense
    for alpha, keep in ((0.3, 0.2), (0.3, 0.6)):
        for i, row in enumerate(rows()):
            ids = torch.from_numpy(row[: plan.length].astype(np.int64))[None]
            slow = Slow(model, name, row, alpha)
            counts = np.stack([each[: plan.prompt_tokens - 1].sum(0) for each in slow.core]).astype(float)
            kept = top(counts, np.full(families.LAYERS, round(keep * families.WIDTH)))
            dense, sparse = (_nll(made, ids, plan) for made in (logits(model, ids), _sparse(model, downs, kept, ids)))
            assert nll[i] == pytest.approx(dense, abs=1e-5)
            assert rises[i, plan.points.index((alpha, keep))] == pytest.approx(sparse - dense, abs=2e-5)


def _sparse(model: PreTrainedModel, downs: Any, kept: NeuronSet, ids: Tensor) -> Tensor:
    return naive(model, downs, kept, ids, 8)


def _nll(made: Tensor, ids: Tensor, plan: Plan) -> float:
    log = made[0].double().log_softmax(-1)
    return float(np.mean([-log[t - 1, int(ids[0, t])] for t in range(plan.prompt_tokens, plan.length)]))


def test_costs_come_in_the_order_of_texts_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ticks = families.build("Llama"), list[int]()
    whole = cost(model, texts(), PLAN, ticks.append)
    assert sum(ticks) == len(LENGTHS) * len(PLAN.points)
    monkeypatch.setattr("pipeline.analysis.quality.batch_size", lambda *_: 2)
    for one, other in zip(whole, cost(model, texts(), PLAN), strict=True):
        assert one == pytest.approx(other, abs=1e-5)


def test_a_loss_that_is_no_number_names_its_text() -> None:
    model = families.build("Llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[int(texts()[3].ids[5])] = float("nan")  # type: ignore[operator]
    others = [t for t in texts() if t.name == "text 3" or texts()[3].ids[5] not in t.ids]
    with pytest.raises(CoreInferError, match=r"'text 3' is not a number: try --dtype float32"):
        cost(model, others, PLAN)
