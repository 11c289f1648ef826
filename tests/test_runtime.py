"""Who makes the tokens: the project's own steps equal Transformers', and stand back where they would not."""

import sys
from typing import Any

import numpy as np
import pytest
import torch
from families import BOS, LAYERS, WIDTH, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import greedy, some

from coreinfer import CoreInferError
from coreinfer.clock import Clock
from coreinfer.decode.continuing import Sampling, sampling_of, shaped_by
from coreinfer.llamacpp.session import library
from coreinfer.neurons import NeuronSet
from coreinfer.runtime import Runtime, Runtimes
from coreinfer.settings import StatisticSettings

PROMPT, NEW = 12, 20
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}


def ids() -> torch.Tensor:
    return torch.tensor([[BOS, *tokens(1, PROMPT - 1)[0].tolist()]])


class Seen:
    """A streamer that remembers."""

    def __init__(self) -> None:
        self.tokens = list[int]()

    def put(self, value: torch.Tensor) -> None:
        self.tokens += value.flatten().tolist()

    def end(self) -> None:
        """Nothing is left to do."""


def run(
    model: Any, wanted: Runtime, neurons: Any = None, ends: Any = None, **options: Any
) -> tuple[list[int], str, Any]:
    seen = Seen()
    made = Runtimes(model, StatisticSettings(), 0).run(
        wanted, ids(), neurons or some(), NEW, Clock(seen), ends or (lambda token: False), {**GREEDY, **options}
    )
    assert made.ids[0].tolist() == seen.tokens
    return made.ids[0].tolist(), made.runtime, seen


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "Gemma3", "OPT"])
def test_both_equal_the_naive_reference(name: str) -> None:
    model = build(name)
    wanted = greedy(model, down_modules(model, name), some(), ids(), NEW)
    for runtime in ("transformers", "coreinfer", "auto"):
        made, maker, _ = run(build(name), runtime)
        assert made == wanted
        assert maker == ("transformers" if runtime == "transformers" else "coreinfer")


def test_a_set_decided_in_prefill() -> None:
    """The statistic is the prompt's, whoever runs the prefill, and does not count beginning-of-text."""
    found = list[tuple[Any, int]]()

    def decide(shares: Any, count: int) -> NeuronSet:
        found.append((shares, count))
        return some()

    made = [run(build("Llama"), runtime, decide)[0] for runtime in ("transformers", "coreinfer")]
    assert made[0] == made[1]
    assert [count for _, count in found] == [PROMPT - 1] * 2
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-7)


def test_it_ends_where_it_should() -> None:
    whole = run(build("Llama"), "coreinfer")[0]
    for at in (PROMPT, PROMPT + 3):
        stop = whole[at]
        made = run(build("Llama"), "coreinfer", ends=lambda token, stop=stop: token == stop)[0]
        assert made == whole[: whole.index(stop, PROMPT) + 1]


def test_another_set_follows_at_once() -> None:
    """The second of two generations is what it is alone: caches and gathered weights of the first do not show."""
    model, every = build("Llama"), NeuronSet((np.arange(WIDTH, dtype=np.int32),) * LAYERS, WIDTH)
    runtimes = Runtimes(model, StatisticSettings(), 0)

    def made(neurons: NeuronSet) -> list[int]:
        out = runtimes.run("auto", ids(), neurons, NEW, Clock(None), lambda token: False, GREEDY).ids
        return [int(token) for token in out[0]]

    sets = [some(), every, some(seed=9), some(), some((5, 40))]
    together = [made(neurons) for neurons in sets]
    assert together == [run(build("Llama"), "transformers", neurons)[0] for neurons in sets]


def test_a_longer_text_gets_a_larger_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coreinfer.runtime.ROOM", 16)
    model = build("Llama")
    runtimes = Runtimes(model, StatisticSettings(), 0)
    for length in (2, 30, 52):
        made = runtimes.run("auto", ids(), some(), length, Clock(None), lambda token: False, GREEDY)
        wanted = greedy(model, down_modules(model, "Llama"), some(), ids(), length)
        assert (made.ids[0].tolist(), made.runtime) == (wanted, "coreinfer")


@pytest.fixture
def shaped() -> Any:
    model: Any = build("Llama")
    model.generation_config.repetition_penalty = 1.3
    return model


def test_what_only_transformers_does(shaped: Any) -> None:
    plain = build("Llama")
    for options in ({"stop_strings": ["x"]}, {"repetition_penalty": 1.2}, {"do_sample": True}, {"top_k": 5}):
        assert sampling_of({**GREEDY, **options}) is None
    assert shaped_by(plain, {}) is None
    assert shaped_by(shaped, {}) == "repetition_penalty"
    plain.generation_config.top_p = 0.8
    assert shaped_by(plain, {"do_sample": True}) == "top_p"
    assert shaped_by(plain, GREEDY) is shaped_by(plain, {"do_sample": True, "top_p": 1.0}) is None
    assert run(shaped, "auto")[1] == "transformers"
    with pytest.raises(CoreInferError, match="cannot serve the repetition_penalty of the model's generation_config"):
        run(shaped, "coreinfer")
    with pytest.raises(CoreInferError, match="cannot serve the architecture 'gpt2'"):
        run(build("GPT2"), "coreinfer")
    assert run(build("GPT2"), "auto")[1] == "transformers"


def test_llama_cpp_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What runs with it is in tests_llama. What it has no graph for is said first; no weight is touched."""
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    library.cache_clear()
    model = build("Llama")
    before = {name: value.data_ptr() for name, value in model.named_parameters()}
    with pytest.raises(CoreInferError, match=r"llama.cpp needs the package llama-cpp-python: pip install 'coreinfer"):
        run(model, "llama.cpp")
    assert before == {name: value.data_ptr() for name, value in model.named_parameters()}
    with pytest.raises(CoreInferError, match=r"llama.cpp cannot serve the architecture 'gpt2': let --runtime be auto"):
        run(build("GPT2"), "llama.cpp")


def test_what_sampling_options_come_to() -> None:
    assert sampling_of({}) == sampling_of(GREEDY) == Sampling()
    drawn = {**GREEDY, "do_sample": True, "top_k": 0}
    assert sampling_of({**drawn, "temperature": 0.5}) == Sampling(0.5)
    assert sampling_of({**drawn, "top_p": 1.0}) == Sampling(1.0)
    odd: list[Any] = [0.0, -1.0, float("nan"), None, np.ones(2)]
    for heat in odd:
        assert sampling_of({**drawn, "temperature": heat}) is None
    assert sampling_of({**drawn, "top_p": 0.9}) is None
    assert sampling_of({**GREEDY, "temperature": 0.5}) is None


def test_a_seed_draws_the_same_again() -> None:
    made = list[list[int]]()
    for seed in (1, 1, 2):
        model = build("Llama")  # which seeds, too
        torch.manual_seed(seed)
        made.append(run(model, "coreinfer", do_sample=True, top_k=0, temperature=2.0)[0])
    assert made[0] == made[1] != made[2]
    twice = [run(model, "coreinfer", do_sample=True, top_k=0, temperature=2.0)[0] for _ in range(2)]
    assert twice[0] != twice[1]  # the seed moves on
    assert made[1][PROMPT + 1 :] != made[2][PROMPT:-1]  # nor are a seed's draws the next seed's, a token later


def _heats() -> list[dict[str, Any]]:
    return [{}, *({"do_sample": True, "top_k": 0, "temperature": heat} for heat in (1e-4, 50.0))]


def test_temperatures_are_heeded() -> None:
    """Nearly cold, what is drawn is what is likeliest, from the first token on; hot, it is hardly ever."""
    model = build("Llama")
    torch.manual_seed(0)
    greedy_, cold, hot = (run(model, "coreinfer", **options)[0][PROMPT:] for options in _heats())
    assert cold == greedy_
    assert sum(a == b for a, b in zip(hot, greedy_, strict=True)) < NEW / 2


def test_weights_that_change_are_seen() -> None:
    model: Any = build("Llama")
    runtimes = Runtimes(model, StatisticSettings(), 0)
    before = runtimes.run("coreinfer", ids(), some(), NEW, Clock(None), lambda token: False, GREEDY).ids
    with torch.no_grad():
        model.get_output_embeddings().weight[:] = model.get_output_embeddings().weight.flip(0)
    after = runtimes.run("coreinfer", ids(), some(), NEW, Clock(None), lambda token: False, GREEDY).ids
    assert after.tolist() != before.tolist()
    assert after[0].tolist() == greedy(model, down_modules(model, "Llama"), some(), ids(), NEW)


def test_hooks_and_adapters_are_transformers_business() -> None:
    hooked, opt = build("Llama"), build("OPT")
    hooked.model.layers[1].register_forward_hook(lambda module, args, out: None)
    assert run(hooked, "auto")[1] == "transformers"
    opt.model.decoder.layers[0].self_attn.q_proj = torch.nn.Sequential(opt.model.decoder.layers[0].self_attn.q_proj)
    assert run(opt, "auto")[1] == "transformers"


def test_the_first_call_inside_inference_mode_spoils_nothing() -> None:
    model = build("Llama")
    runtimes = Runtimes(model, StatisticSettings(), 0)

    def made() -> list[int]:
        out = runtimes.run("coreinfer", ids(), some(), 4, Clock(None), lambda token: False, GREEDY).ids
        return [int(token) for token in out[0]]

    with torch.inference_mode():
        first = made()
    assert made() == first
    model(input_ids=ids()).logits.sum().backward()


def test_a_first_call_beside_an_open_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps read the full weights also while slim has gathered ones in place."""
    from coreinfer.decode.families import read_network
    from coreinfer.mlp import gather_mlp, put
    from coreinfer.models import find_mlps

    for name in ("Llama", "OPT", "Phi3"):
        model = build(name)
        for mlp in find_mlps(model):
            put(mlp, gather_mlp(mlp, np.arange(5, dtype=np.int32)))
        assert read_network(model, bundle=False).width == WIDTH
