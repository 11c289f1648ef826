"""On a GPU: the kernels as they compile there, float32, 256 tokens of each family; 16 bits step by step."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from families import BOS, FAMILIES, WIDTH, build, down_modules, tokens, twice
from slow_truths import generated, greedy, some
from transformers import PreTrainedModel

from coreinfer.clock import Clock
from coreinfer.decode.continuing import Begun, Sampling
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.decode.network import Network
from coreinfer.decode.reference import step
from coreinfer.decode.rows import RowsStep
from coreinfer.decode.state import State
from coreinfer.decode.steps import Step
from coreinfer.decode.together import Text, decode
from coreinfer.models import quantise
from coreinfer.neurons import every
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
KNOWN = ("OPT", "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3")
known = pytest.mark.parametrize("name", KNOWN)
PROMPT, NEW, CONTEXT = 12, 256, 320
OPTIONS: dict[str, Any] = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}


def roomy(name: str, wide: bool = False) -> PreTrainedModel:
    """The family's tiny model with a longer context."""
    config: Any = twice(FAMILIES[name]) if wide else deepcopy(FAMILIES[name])
    config.max_position_embeddings = CONTEXT
    if hasattr(config, "original_max_position_embeddings"):
        config.original_max_position_embeddings = CONTEXT
    return build(name, config)


def on_gpu(model: PreTrainedModel) -> Any:
    moved: Any = model
    return moved.to("cuda")


def ids(length: int = PROMPT, seed: int = 0) -> torch.Tensor:
    return torch.tensor([[BOS, *tokens(1, length - 1, seed)[0].tolist()]])


def runs(model: Any, neurons: Any, lossless: bool = False) -> list[int]:
    made = Runtimes(model, StatisticSettings(), 0).run(
        "coreinfer", ids().cuda(), neurons, NEW, Clock(None), lambda token: False, OPTIONS, lossless
    )
    found: list[int] = made.ids[0].tolist()
    return found


@known
def test_tokens_equal_naive_masks(name: str) -> None:
    wanted = greedy(model := roomy(name), down_modules(model, name), some(), ids(), NEW)
    assert runs(on_gpu(roomy(name)), some()) == wanted


@known
def test_lossless_tokens_equal_transformers(name: str) -> None:
    assert runs(on_gpu(roomy(name)), some((40, 44)), lossless=True) == generated(roomy(name), ids(), NEW)[0]


@known
def test_texts_together_equal_those_alone(name: str) -> None:
    """Five of them, whose ends are apart, after one alone."""
    model, whole, neurons = on_gpu(roomy(name)), roomy(name), some()
    decoder, prompts = Decoder(model, CONTEXT), [ids(6 + n, n) for n in range(5)]
    lengths = [40, 1, 64, 13, 40]
    made = list[Text]()
    for prompt, length in [(prompts[0], 20), *zip(prompts, lengths, strict=True)]:
        out = model(input_ids=prompt.cuda(), use_cache=True)
        begun = Begun(prompt.cuda(), out.past_key_values, neurons, int(out.logits[0, -1].argmax()))
        made.append(Text(begun, length))
    with torch.inference_mode():
        for texts in (made[:1], made[1:]):
            decoder.make_room(CONTEXT, len(texts))
            decode(decoder, texts, neurons, lambda token: False, Sampling())
    for text in made:
        prompt = text.begun.ids.cpu()
        wanted = greedy(whole, down_modules(whole, name), neurons, prompt, text.length)
        assert text.made == wanted[prompt.shape[1] :]


def test_one_set_after_another_and_another_budget() -> None:
    model, whole = on_gpu(roomy("Llama")), roomy("Llama")
    for neurons in (some(seed=3), some(seed=4), some((7, 41)), some(seed=3), every(2, WIDTH)):
        assert runs(model, neurons) == greedy(whole, down_modules(whole, "Llama"), neurons, ids(), NEW)


def caches(net: Network) -> list[torch.Tensor]:
    shape = len(net.layers), CONTEXT, net.kv_heads, net.head_dim
    return [net.embedding.new_zeros(shape) for _ in range(2)]


@known
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "int4"])
@torch.no_grad()
def test_fewer_bits_step_by_step(name: str, dtype: str) -> None:
    """Logits by the kernels, those of several rows too, beside the plain step's on the same tokens."""
    model: Any = roomy(name, wide=True)
    model = model.to("cuda", torch.bfloat16) if dtype == "bfloat16" else quantise(model, dtype, "cuda")
    net, neurons = read_network(model), some()
    kept, room = [torch.from_numpy(x).long().cuda() for x in neurons.layers], caches(net)
    kinds = (Step, RowsStep) if dtype == "bfloat16" else (Step,)
    states = [State(net, CONTEXT) for _ in kinds]
    for state in states:
        state.keep(neurons)
    runs_: list[Any] = [kind(net, state, neurons.per_layer) for kind, state in zip(kinds, states, strict=True)]
    for position, token in enumerate(tokens(1, 100)[0].tolist()):
        wanted = step(net, token, position, *room, kept)
        made = list[torch.Tensor]()
        for state, run in zip(states, runs_, strict=True):
            state.feed.token.fill_(token)
            run.run()
            made.append(run.v.logits[0] if isinstance(run, RowsStep) else state.feed.logits[0])
            assert float((made[-1] - wanted).abs().max()) < 0.06 * float(wanted.abs().max())
        assert float((made[-1] - made[0]).abs().max()) < 0.005 * float(wanted.abs().max())


def test_what_is_drawn_follows_a_seed() -> None:
    model = on_gpu(roomy("Llama"))
    runtimes, found = Runtimes(model, StatisticSettings(), 0), list[list[int]]()
    options = {"do_sample": True, "top_k": 0, "temperature": 0.9, "num_beams": 1, "num_return_sequences": 1}
    for seed, lossless in ((1, False), (1, False), (2, False), (1, True)):
        torch.manual_seed(seed)
        neurons = some((40, 44)) if lossless else every(2, WIDTH)
        made = runtimes.run("coreinfer", ids().cuda(), neurons, 64, Clock(None), lambda token: False, options, lossless)
        found.append(made.ids[0].tolist())
    assert found[0] == found[1] != found[2]
    assert found[3] == found[0]  # lossless: as dense steps draw with this seed
