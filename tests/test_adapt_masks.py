"""The formula in torch against NumPy's; what the hooks let through, in every family; one graph when compiled."""

from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, FAMILIES, LAYERS, WIDTH, build, tokens
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from coreinfer import neurons
from coreinfer.mlp import Mlp, down_rows
from coreinfer.models import find_mlps
from coreinfer.slimming import slim
from coreinfer.statistic import column_energy
from pipeline.adapt import masks
from pipeline.adapt.draws import make_plan
from pipeline.adapt.lora import Adapters, rows_now
from pipeline.adapt.masks import Masks, Plan
from pipeline.adapt.objective import make_loss
from pipeline.adapt.packing import Windows

SEGMENTS, CLUSTERS = 3, 5
Doubles = NDArray[np.float64]


def a_plan(batch: int, length: int, width: int, seed: int, ids: Tensor | None = None) -> Plan:
    """Random segments, prompts and policies; all three kinds of n0 where the batch has room for them."""
    rng = torch.Generator().manual_seed(seed)
    segment = torch.randint(0, SEGMENTS, (batch, length), generator=rng).sort(1).values
    first = torch.searchsorted(segment, torch.arange(SEGMENTS).expand(batch, -1).contiguous())
    place = torch.arange(length) - first.gather(1, segment)
    ids = torch.full((batch, length + 1), 7) if ids is None else ids
    n0 = torch.tensor([0.0, float("inf"), 3.0, 500.0]).roll(-seed).repeat(batch)[:batch]
    mixture = torch.rand(batch, SEGMENTS, CLUSTERS, generator=rng)
    return make_plan(
        Windows(ids, segment, place, segment), torch.randint(1, length, (batch, SEGMENTS), generator=rng),
        torch.rand(batch, generator=rng) < 0.8, mixture / mixture.sum(-1, keepdim=True), n0,
        torch.randint(1, width + 1, (batch,), generator=rng), BOS,
    )  # fmt: skip


def slow_score(a: Doubles, column: Doubles, prior: Doubles, plan: Plan, b: int, s: int) -> Doubles:
    """One segment's score by ``coreinfer.neurons``."""
    prompt = plan.prompt[b, s].numpy()
    energy = (a[b][prompt] ** 2).sum(0) * column
    n0 = float(plan.n0[b])
    return neurons.share(prior) if np.isinf(n0) else neurons.blend(energy, prior, int(prompt.sum()), n0)


def check(a: Doubles, got: Doubles, column: Doubles, priors: Doubles, plan: Plan, close: float) -> None:
    """``got`` (B, T, F) is ``a`` on dense tokens, and elsewhere on NumPy's core neurons alone; ties may add some."""
    for b in range(len(a)):
        for s in range(SEGMENTS):
            prior = neurons.mix(priors[:, None], plan.mixture[b, s].double().numpy())[0]
            count, tokens = int(plan.prompt[b, s].sum()), plan.segment[b].numpy() == s
            if not count and float(plan.n0[b]) == 0:
                continue  # nothing is known: 0 / 0
            score = slow_score(a, column, prior, plan, b, s)
            k = int(plan.kept[b])
            core = neurons.top(score[None], np.array([k])).layers[0]
            last = score[core].min()
            sure = np.abs(score - last) > close * last
            sparse = tokens & ~plan.dense[b].numpy()
            wanted = np.where(np.isin(np.arange(a.shape[-1]), core), a[b][sparse], 0)
            assert np.array_equal(got[b][sparse][:, sure], wanted[:, sure])
            assert ((got[b][sparse] == 0) | (got[b][sparse] == a[b][sparse])).all()
    dense = plan.dense.numpy()
    assert np.array_equal(got[dense], a[dense])


@given(st.integers(1, 4), st.integers(2, 12), st.integers(2, 9), st.integers(0, 1 << 30))
@settings(deadline=None)
def test_score_and_masks_are_numpys(batch: int, length: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    plan = a_plan(batch, length, width, seed)
    a = rng.normal(size=(batch, length, width)) * (rng.random((1, 1, width)) < 0.9)
    column, priors = rng.gamma(1.0, size=width), rng.dirichlet(np.ones(width), CLUSTERS)
    seen = torch.from_numpy(a)
    energies = [
        torch.bmm(which.double(), seen * seen) * torch.from_numpy(column) for which in (plan.prompt, plan.counted)
    ]
    prior = plan.mixture.double() @ torch.from_numpy(priors)
    scores = masks.score(energies[0], prior, plan.prompt.sum(-1).double(), plan.n0.double())
    for b in range(batch):
        for s in range(SEGMENTS):
            assert np.allclose(masks.share(energies[1])[b, s], neurons.share(energies[1][b, s].numpy()))
            if plan.prompt[b, s].any() or plan.n0[b] > 0:
                assert np.allclose(scores[b, s], slow_score(a, column, prior[b, s].numpy(), plan, b, s), atol=1e-12)
    got = masks.masked(seen, masks.core(scores, plan.kept), plan)
    check(a, got.numpy(), column, priors, plan, 1e-9)


def test_energy_is_the_recorders() -> None:
    a, column = torch.randn(2, 5, 7), torch.rand(7)
    which = torch.rand(2, SEGMENTS, 5) < 0.5
    slow = torch.stack(
        [torch.stack([(row[some] ** 2).sum(0) * column for some in x]) for row, x in zip(a, which, strict=True)]
    )
    assert torch.allclose(masks.energy(a, which, column), slow, atol=1e-5)


def test_griffin_is_the_recorders() -> None:
    a, which = torch.randn(2, 5, 7), torch.rand(2, SEGMENTS, 5) < 0.5
    slow = torch.stack(
        [torch.stack([(row[some] ** 2 / (row[some] ** 2).sum(1, keepdim=True)).sum(0) for some in x])
         for row, x in zip(a, which, strict=True)]
    )  # fmt: skip
    assert torch.allclose(masks.griffin(a, which), slow, atol=1e-5)
    assert not masks.griffin(torch.zeros(2, 5, 7), which).any()


def test_ties_are_all_core_and_uniform_priors_keep_all() -> None:
    scores = torch.tensor([[[3.0, 1.0, 2.0, 1.0]]])
    assert masks.core(scores, torch.tensor([3])).tolist() == [[[True, True, True, True]]]
    assert masks.core(scores, torch.tensor([2])).tolist() == [[[True, False, True, False]]]
    assert masks.core(torch.full((1, 1, 4), 0.25), torch.tensor([1])).all()


def test_gradients_pass_what_is_kept_alone() -> None:
    a = torch.tensor([[[3.0, 1.0], [5.0, 7.0]]], requires_grad=True)
    plan = a_plan(1, 2, 2, 0)._replace(segment=torch.zeros(1, 2, dtype=torch.long), dense=torch.tensor([[True, False]]))
    masks.masked(a, torch.tensor([[[True, False]]]), plan).sum().backward()  # type: ignore[no-untyped-call]
    assert a.grad is not None
    assert a.grad.tolist() == [[[1, 1], [1, 0]]]


def seen_by(mlps: list[Mlp]) -> tuple[list[Tensor], list[Any]]:
    """What enters each down projection from now on, and the hooks that say so."""
    seen: list[Tensor] = []

    def look(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.append(args[0].detach().clone())

    return seen, [mlp.down.register_forward_pre_hook(look) for mlp in mlps]


def inputs(mlps: list[Mlp], batch: int = 4, length: int = 20) -> tuple[Tensor, Plan, Tensor, Tensor]:
    """Windows, a plan, priors and column energies for a tiny model's MLPs."""
    ids = tokens(batch, length + 1)
    ids[:, 0] = BOS
    priors = torch.rand(LAYERS, CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(5))
    columns = torch.stack([column_energy(rows_now(mlp)) for mlp in mlps])
    return ids, a_plan(batch, length, WIDTH, 0, ids), priors / priors.sum(-1, keepdim=True), columns


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_prompts_are_untouched_and_the_rest_sees_core_neurons_alone(name: str) -> None:
    model = build(name)
    mlps = find_mlps(model)
    ids, plan, priors, columns = inputs(mlps)
    before = model(input_ids=ids[:, :-1], use_cache=False).logits
    full, first = seen_by(mlps)
    mask = Masks(mlps)
    masked, second = seen_by(mlps)  # hooks run in the order in which they came
    assert torch.equal(model(input_ids=ids[:, :-1], use_cache=False).logits, before)
    full.clear()
    masked.clear()
    mask.start(plan, priors, columns)
    model(input_ids=ids[:, :-1], use_cache=False)
    assert [tuple(x.shape) for x in mask.stop()] == [(4, SEGMENTS, WIDTH)] * LAYERS
    assert not plan.dense.all()
    assert not plan.counted[:, 0, 0].any()  # beginning-of-text
    for layer, (a, got) in enumerate(zip(full, masked, strict=True)):
        raw, out = (x.reshape(*plan.segment.shape, WIDTH).double().numpy() for x in (a, got))
        check(raw, out, columns[layer].double().numpy(), priors[layer].double().numpy(), plan, 1e-4)
    mask.remove()
    for hook in (*first, *second):
        hook.remove()
    assert torch.equal(model(input_ids=ids[:, :-1], use_cache=False).logits, before)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Llama", "OPT"])
@pytest.mark.parametrize("keep", [0.15, 0.55])
def test_a_masked_window_is_slim_on_the_prompts_top_energies(name: str, keep: float) -> None:
    model, prompt = build(name), 12
    mlps = find_mlps(model)
    ids, plan, priors, columns = inputs(mlps)
    place = torch.arange(20).expand(4, 20)
    nothing = torch.zeros(4, 20, dtype=torch.long)
    kept = torch.full((4,), round(keep * WIDTH))
    plan = make_plan(
        Windows(ids, nothing, place, nothing[:, :1]), torch.full((4, 1), prompt), torch.ones(4, dtype=torch.bool),
        plan.mixture[:, :1], torch.zeros(4), kept, BOS,
    )  # fmt: skip
    mask = Masks(mlps)
    mask.start(plan, priors, columns)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    mask.remove()
    for row, got in zip(ids[:, :-1], logits, strict=True):
        seen, hooks = seen_by(mlps)
        model(input_ids=row[None, :prompt], use_cache=False)
        for hook in hooks:
            hook.remove()
        energy = [(a.reshape(prompt, -1)[1:] ** 2).sum(0) * column for a, column in zip(seen, columns, strict=True)]
        chosen = neurons.top(torch.stack(energy).numpy(), np.full(LAYERS, round(keep * WIDTH)))
        with slim(model, chosen, prompt_tokens=prompt):
            first = model(input_ids=row[None, :prompt], use_cache=True)
            rest = model(input_ids=row[None, prompt:], past_key_values=first.past_key_values)
        assert torch.allclose(got, torch.cat([first.logits[0], rest.logits[0]]), atol=1e-4)


@pytest.mark.parametrize("adapted", [False, True])
def test_it_compiles_into_one_graph(adapted: bool) -> None:
    model = build("Llama")
    mlps = find_mlps(model)
    if adapted:
        Adapters(model, 2, 0)
    loss = make_loss(model, Masks(mlps), torch.float32, 0.5)
    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    for seed in (0, 1):
        ids, _, priors, columns = inputs(mlps)
        given = ids, a_plan(4, 20, WIDTH, seed, ids), priors, columns, torch.randn(4, 20, 96)
        slow, fast = loss(*given), compiled(*given)
        assert torch.equal(slow[0], fast[0])
        assert all(torch.equal(a, b) for a, b in zip(slow[1], fast[1], strict=True))


@torch.no_grad()
def test_column_energies_know_the_adapters() -> None:
    for name in ("Llama", "GPT2"):  # GPT-2's weights are stored the other way round
        model = build(name)
        mlps = find_mlps(model)
        adapters = Adapters(model, 2, 0)
        for parameter in (p for n, p in model.named_parameters() if "lora_" in n):
            parameter.normal_()
        before = [column_energy(down_rows(mlp)) for mlp in mlps]
        now = [column_energy(rows_now(mlp)) for mlp in mlps]
        adapters.merge()
        after = [column_energy(down_rows(mlp)) for mlp in find_mlps(model)]
        assert all(torch.allclose(a, b, rtol=1e-4) for a, b in zip(now, after, strict=True))
        assert not any(torch.allclose(a, b, rtol=1e-4) for a, b in zip(now, before, strict=True))
