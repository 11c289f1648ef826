"""On a GPU: a step as one kernel beside the plain one, also with so few programs and slots that each is used often."""

from typing import Any

import numpy as np
import pytest
import torch
from families import down_modules, tokens
from slow_truths import greedy, some
from test_decoding import CONTEXT, caches, ids, known, on_gpu, roomy, runs

from coreinfer.decode import whole
from coreinfer.decode.families import read_network
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.steps import Step
from coreinfer.kernels.whole import NotBuilt, compiled
from coreinfer.neurons import NeuronSet, every

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
FEW = "few programs"


@pytest.fixture(autouse=True)
def bulk_copies() -> None:
    if torch.cuda.get_device_capability() < (9, 0):
        pytest.skip("needs a GPU that copies in bulk")


def made(net: Any, state: State, kept: list[int], how: str) -> whole.WholeStep:
    assert whole.unfit(net) is None
    few = whole.Room(net, 2 * net.kv_heads, most_slots=whole.FEWEST_SLOTS)
    return whole.WholeStep(net, state, kept, few if how == FEW else None)


@known
@pytest.mark.parametrize("how", ["all programs", FEW])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_logits_step_by_step(name: str, how: str, dtype: torch.dtype) -> None:
    """Over a context whose positions several programs share; from its middle on with another set of these budgets.

    float32 beside the slow truth; bfloat16, whose roundings that makes elsewhere, beside the plain step.
    """
    net = read_network(on_gpu(roomy(name, wide=True)).to(dtype))
    keys, values = caches(net)
    state, plain, sets = State(net, CONTEXT), State(net, CONTEXT), [some(seed=1), some(seed=2)]
    run, beside = made(net, state, sets[0].per_layer, how), Step(net, plain, sets[0].per_layer)
    for position, token in enumerate(tokens(1, 200)[0].tolist()):
        neurons = sets[position // 100]
        for one in (state, plain):
            one.keep(neurons)
            one.feed.token.fill_(token)
        run.run()
        logits = state.feed.logits[0]
        if dtype is torch.float32:
            kept = [torch.from_numpy(x).long().cuda() for x in neurons.layers]
            wanted, near = step(net, token, position, keys, values, kept), 1e-5
        else:
            beside.run()
            wanted, near = plain.feed.logits[0], 0.005
        assert float((logits - wanted).abs().max()) < near * float(wanted.abs().max())
        assert int(state.feed.next[0]) == int(logits.argmax())


@known
def test_tokens_equal_naive_masks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a decoder, captured, 256 of them."""
    monkeypatch.setattr(whole, "suits", lambda net: whole.unfit(net) is None)
    wanted = greedy(model := roomy(name), down_modules(model, name), some(), ids(), 256)
    assert runs(on_gpu(roomy(name)), some()) == wanted


@torch.no_grad()
def test_a_layer_may_keep_no_more_than_one_neuron() -> None:
    net = read_network(on_gpu(roomy("Llama")))
    width = net.width
    for neurons in (NeuronSet((np.array([3], np.int32), np.array([width - 1], np.int32)), width), every(2, width)):
        states = [State(net, CONTEXT) for _ in range(2)]
        for state in states:
            state.keep(neurons)
        both = [Step(net, states[0], neurons.per_layer), made(net, states[1], neurons.per_layer, FEW)]
        for _ in range(20):
            for one in both:
                one.run()
        assert torch.equal(states[0].history, states[1].history)


def test_the_same_numbers_every_time() -> None:
    """Bit for bit, though programs come and go in another order each time."""
    net = read_network(on_gpu(roomy("Llama", wide=True)).to(torch.bfloat16))
    found = list[torch.Tensor]()
    for _ in range(5):
        state = State(net, CONTEXT)
        state.keep(neurons := some())
        run = made(net, state, neurons.per_layer, "all programs")
        for _ in range(100):
            run.run()
        found.append(state.feed.logits.clone())
    assert all(torch.equal(found[0], x) for x in found[1:])


def test_what_cannot_be_built_is_said_and_several_kernels_do_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotBuilt, match="error"):
        compiled((("SIZE", 2),), torch.device("cuda"))
    net = read_network(on_gpu(roomy("Llama")))
    monkeypatch.setattr(whole, "suits", lambda net: whole.unfit(net) is None)
    assert isinstance(whole.one_text(net, State(net, CONTEXT), [net.width] * 2), whole.WholeStep)
    monkeypatch.setattr(whole.Room, "all", property(lambda room: 1024))
    assert type(whole.one_text(net, State(net, CONTEXT), [net.width] * 2)) is Step


def test_which_models_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = read_network(on_gpu(roomy("Llama")))
    monkeypatch.setattr(whole, "buildable", lambda: False)
    assert whole.unfit(net) == "no compiler for CUDA"
