"""On a GPU: a step as one kernel beside the plain one, also with so few programs and slots that each is used often."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from families import down_modules, tokens
from slow_truths import greedy, some
from test_decoding import CONTEXT, caches, ids, known, on_gpu, roomy, runs
from transformers import LlamaConfig, LlamaForCausalLM

from coreinfer.decode import whole
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.decode.reference import step
from coreinfer.decode.state import State
from coreinfer.decode.steps import Step
from coreinfer.kernels import whole as kernel
from coreinfer.kernels.whole import Kernel, NotBuilt
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


def alike(net: Any, neurons: NeuronSet, steps: int, near: float, how: str) -> None:
    """Both steps, each on what it made before, from a cache that is full of noise: their logits."""
    states = [State(net, CONTEXT, slots=2) for _ in range(2)]
    noise = [torch.randn_like(states[0].keys) for _ in range(2)]
    for state in states:
        state.keep(neurons)
        state.keys.copy_(noise[0])
        state.values.copy_(noise[1])
        state.feed.position.fill_(CONTEXT - steps - 1)
        state.feed.slot.fill_(1)
    both = [Step(net, states[0], neurons.per_layer), made(net, states[1], neurons.per_layer, how)]
    for _ in range(steps):
        states[1].feed.token.copy_(states[0].feed.token)
        for one in both:
            one.run()
        wanted, logits = (state.feed.logits[0] for state in states)
        assert float((logits - wanted).abs().max()) < near * float(wanted.abs().max())


@torch.no_grad()
def test_a_layer_may_keep_no_more_than_one_neuron() -> None:
    net = read_network(on_gpu(roomy("Llama")))
    width = net.width
    one = NeuronSet((np.array([3], np.int32), np.array([width - 1], np.int32)), width)
    for neurons in (one, every(2, width)):
        alike(net, neurons, 20, 1e-5, FEW)


SHAPES = {  # what tiny models do not have: several pieces a thread, piles, rounds of ids; wide and odd heads
    "wide": {"hidden_size": 4096, "intermediate_size": 5000, "num_attention_heads": 32, "num_key_value_heads": 8},
    "eight queries a key": {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2},
    "heads of 96": {"hidden_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 96},
    "one key head of 256": {"hidden_size": 2048, "num_attention_heads": 8, "num_key_value_heads": 1, "head_dim": 256},
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("how", ["all programs", FEW])
@torch.no_grad()
def test_shapes_of_real_models(shape: str, how: str) -> None:
    sizes = {"intermediate_size": 3000, "vocab_size": 5000, "num_hidden_layers": 2} | SHAPES[shape]
    config = LlamaConfig(**sizes, max_position_embeddings=CONTEXT)
    torch.manual_seed(0)
    net = read_network(LlamaForCausalLM(config).eval().to("cuda", torch.bfloat16))
    kept = np.sort(np.random.default_rng(0).permutation(net.width)[:1234]).astype(np.int32)
    alike(net, NeuronSet((kept, kept[::2].copy()), net.width), 8, 0.005, how)


@torch.no_grad()
def test_to_keep_another_set_leaves_caches_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that is made runs on the caches' last places, which are put back."""
    monkeypatch.setattr(whole, "suits", lambda net: whole.unfit(net) is None)
    decoder = Decoder(on_gpu(roomy("Llama")), CONTEXT)
    decoder.make_room(CONTEXT, 2)
    state = decoder.state
    for held in (state.keys, state.values):
        held.normal_()
    state.history.random_(0, 90)
    before = [held.clone() for held in (state.keys, state.values, state.history, state.feed.token)]
    decoder.keep(some())
    assert isinstance(decoder._step, whole.WholeStep)
    for held, was in zip((state.keys, state.values, state.history, state.feed.token), before, strict=True):
        assert torch.equal(held, was)


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


@pytest.mark.parametrize("what", ["a compiler's fault", "a driver's refusal", "bindings without their library"])
def test_what_cannot_be_built_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Then several kernels do it."""

    def refuses(*_: Any, **__: Any) -> None:
        raise RuntimeError("no libnvrtc") if "bindings" in what else NotBuilt("CUDA: CUDA_ERROR")

    monkeypatch.setattr(whole, "_failed", set())
    monkeypatch.setattr(whole, "suits", lambda net: whole.unfit(net) is None)
    if "compiler" in what:
        monkeypatch.setattr(whole.Room, "all", property(lambda room: 1024))
    elif "driver" in what:
        monkeypatch.setattr(Kernel, "launch", refuses)
    else:
        monkeypatch.setattr(kernel, "_compiled", refuses)
    net = read_network(on_gpu(roomy("Llama")))
    for _ in range(2):
        assert type(whole.one_text(net, State(net, CONTEXT), [net.width] * 2)) is Step
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "a step takes several kernels" in caplog.text


def test_which_models_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    net = read_network(on_gpu(roomy("Llama")))
    other = replace(net.final, eps=0.5)
    assert whole.unfit(replace(net, final=other)) == "norms that differ"
    assert whole.unfit(replace(net, heads=net.kv_heads * 9)) == f"{net.kv_heads * 9} heads for {net.kv_heads}"
    assert whole.unfit(replace(net, embedding=net.embedding.half())) == "weights that are neither bfloat16 nor float32"
    assert "a width of" in str(whole.unfit(replace(net, head_dim=3)))
    monkeypatch.setattr(whole, "buildable", lambda: False)
    assert whole.unfit(net) == "no compiler for CUDA"
