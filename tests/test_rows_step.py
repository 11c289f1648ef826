"""Several rows by the kernels (on Triton's interpreter), against the step in plain torch."""

from typing import Any

import pytest
import torch
from families import BOS, build, down_modules, tokens
from families import one_thread as one_thread
from slow_truths import generated, greedy, some

from coreinfer.decode.continuing import Begun, Sampling
from coreinfer.decode.decoder import Decoder
from coreinfer.decode.families import read_network
from coreinfer.decode.reference import step
from coreinfer.decode.state import Feed, State
from coreinfer.decode.together import Text, decode
from coreinfer.neurons import every


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("triton")
    from coreinfer.decode import rows

    for name, value in {"PICKERS": 1, "SPLITS": 2, "CHUNK": 64}.items():  # the interpreter runs program by program
        monkeypatch.setattr(rows, name, value)
    return rows


@pytest.mark.parametrize("name", ["OPT", "Mistral", "Qwen3", "Gemma2"])
@torch.no_grad()
def test_rows_of_one_text_equal_steps_in_turn(name: str, kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a dense model looks at drafts: past a window of 16, over chunks of 16; a row not in use does nothing."""
    for size, value in {"CHUNK": 16, "WIDE": 16, "DEEP": 16, "BLOCK": 16, "SPLITS": 2}.items():
        monkeypatch.setattr(kernels, size, value)
    net, neurons, ids = read_network(build(name)), some(), tokens(1, 21)[0].tolist()
    kept = [torch.from_numpy(x).long() for x in neurons.layers]
    keys, values = torch.zeros(2, len(net.layers), 64, net.kv_heads, net.head_dim)
    wanted = [step(net, token, at, keys, values, kept) for at, token in enumerate(ids)]
    state, feed = State(net, 64, 2), Feed(net, 4)
    state.keys[:, 1, :18], state.values[:, 1, :18] = keys[:, :18], values[:, :18]
    state.keep(neurons)
    made = kernels.RowsStep(net, state, neurons.per_layer, feed, looking=True)
    feed.count = 3
    feed.token[:3], feed.position[:3], feed.slot[:] = torch.tensor(ids[18:]), torch.arange(18, 21), 1
    feed.position[3], before = 30, state.keys[:, 1, 30].clone()
    made.look()
    for row in range(3):
        assert torch.allclose(made.v.logits[row], wanted[18 + row], atol=5e-5)
        assert int(feed.next[row]) == int(wanted[18 + row].argmax())
    assert torch.allclose(state.keys[:, 1, :21], keys[:, :21], atol=1e-5)
    assert torch.allclose(state.values[:, 1, :21], values[:, :21], atol=1e-5)
    assert torch.equal(state.keys[:, 1, 30], before)
    assert feed.position[:3].tolist() == [18, 19, 20]


@torch.no_grad()
def test_rows_of_several_texts_go_on_by_themselves(kernels: Any) -> None:
    """And to the last bit as alone; one leaves, and the last takes its place."""
    net, all_of = read_network(build("Llama")), every(2, 48)
    texts = tokens(3, 4)
    together, alone = State(net, 64, 3), [State(net, 64) for _ in range(3)]
    for state in (together, *alone):
        state.keep(all_of)
    many = kernels.RowsStep(net, together, all_of.per_layer)
    ones = [kernels.RowsStep(net, state, all_of.per_layer) for state in alone]
    for at in range(3):
        rows = together.feed.slot[: together.feed.count].tolist()
        for row, text in enumerate(rows):
            together.feed.token[row] = alone[text].feed.token[0] = texts[text, at]
        many.run()
        for row, text in enumerate(rows):
            ones[text].run()
            found = many.v.logits[row]
            assert torch.equal(found, ones[text].v.logits[0])
            assert int(together.history[text, at + 1]) == int(alone[text].feed.token[0]) == int(found.argmax())
        if at == 0:
            together.feed.drop(0)
            assert together.feed.slot[:2].tolist() == [2, 1]
    assert together.feed.position[:2].tolist() == [3, 3]


@torch.no_grad()
def test_weights_of_16_bits_meet_all_of_a_vector(kernels: Any) -> None:
    """Rounded to the weights' dtype, and what that leaves of it. float16: of bfloat16 the interpreter multiplies the
    bits as if they were numbers.
    """
    model: Any = build("Llama")
    net, neurons = read_network(model.half()), some()
    room = torch.zeros(2, len(net.layers), 64, net.kv_heads, net.head_dim, dtype=torch.float16)
    state = State(net, 64)
    state.keep(neurons)
    made = kernels.RowsStep(net, state, neurons.per_layer)
    for position, token in enumerate((7, 30)):
        state.feed.token.fill_(token)
        made.run()
        wanted = step(net, token, position, room[0], room[1], [torch.from_numpy(x).long() for x in neurons.layers])
        assert torch.allclose(made.v.logits[0], wanted, atol=2e-3)


@pytest.fixture
def on_gpu(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A decoder as on a GPU; its kernels are interpreted, and launched one by one."""
    from coreinfer.decode import drafting, lossless, state, steps

    for module in (state, steps):
        monkeypatch.setattr(module, "PICKERS", 1)
    for module in (drafting, lossless):
        monkeypatch.setattr(module, "MOST", 2)
    monkeypatch.setattr(steps.Launches, "capture", steps.Launches.run)

    def made(model: Any) -> Decoder:
        one = Decoder(model, 64)
        one.on_gpu, one.network = True, read_network(model)
        one.state = State(one.network, 64)
        return one

    return made


def test_a_lossless_text_is_the_dense_one(on_gpu: Any) -> None:
    ids = torch.tensor([[BOS, *tokens(1, 11)[0].tolist()]])
    wanted = generated(build("Llama"), ids, 8)[0][12:]
    model: Any = build("Llama")
    decoder, out = on_gpu(model), model(input_ids=ids, use_cache=True)
    decoder.begin(ids, out.past_key_values, first := int(out.logits[0, -1].argmax()))
    decoder.keep(some((40, 44)))
    maker = decoder.lossless()
    assert [first, *maker.tokens(7)] == wanted
    assert maker.drafts().drafted > 0
    assert decoder.state.history[0, :20].tolist() == [*ids[0].tolist(), *wanted]


def test_texts_together_are_those_alone(on_gpu: Any) -> None:
    """After a text alone, whose step has one row."""
    model, neurons = build("Llama"), some()
    prompts = [torch.tensor([[BOS, *tokens(1, 5 + n, n)[0].tolist()]]) for n in range(2)]
    wanted = [greedy(model, down_modules(model, "Llama"), neurons, ids, 4) for ids in prompts]
    decoder, texts = on_gpu(model), list[Text]()
    for ids in [prompts[0], *prompts]:
        out: Any = model(input_ids=ids, use_cache=True)
        texts.append(Text(Begun(ids, out.past_key_values, neurons, int(out.logits[0, -1].argmax())), 4))
    for some_texts in (texts[:1], texts[1:]):
        decoder.make_room(64, len(some_texts))
        decode(decoder, some_texts, neurons, lambda token: False, Sampling())
    assert [[*text.begun.ids[0].tolist(), *text.made] for text in texts] == [wanted[0], *wanted]


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("rows", [16, 64, 128])
@pytest.mark.parametrize("shared", [232_448, 166_912, 101_376, 65_536])
def test_pieces_fit_into_a_programs_memory(size: int, rows: int, shared: int, kernels: Any) -> None:
    """Of an H100, an A100, a consumer's card and an older one; as measured on the first, where it has the room."""
    deep, stages = kernels.pieces(shared, size, rows)
    assert stages * deep * size * (2 * kernels.WIDE + rows) <= shared
    assert deep >= 16
    assert stages >= 2
    if (shared, rows) == (232_448, 16):
        assert (deep * size, stages) == (256, 4)
