"""Short prompts are read by one thread, longer ones by all."""

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import pytest
import torch
from families import build
from quantising import both, known, narrow

from coreinfer import Engine
from coreinfer.decode.continuing import Noise, Sampling, continuing
from coreinfer.decode.decoder import Decoder
from coreinfer.neurons import every
from coreinfer.settings import StatisticSettings
from coreinfer.threads import LITTLE, enough_for, multiplications_of, running_on


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    with running_on(3):
        yield


@pytest.mark.parametrize(("work", "threads"), [(0, 1), (LITTLE, 1), (LITTLE + 1, 3)])
def test_what_is_little_has_one_thread(work: float, threads: int) -> None:
    with enough_for(work):
        assert torch.get_num_threads() == threads
        with enough_for(work):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 3


def test_an_error_leaves_as_many_as_there_were() -> None:
    with pytest.raises(ZeroDivisionError), enough_for(0):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 3


def test_a_thread_that_began_while_anothers_was_lowered_has_all_of_them() -> None:
    found, lowered, go_on = list[int](), Event(), Event()

    def short() -> None:
        with enough_for(0):
            lowered.set()
            go_on.wait(60)

    def new() -> None:
        found.append(torch.get_num_threads())
        for work in (LITTLE + 1, 0):
            with enough_for(work):
                found.append(torch.get_num_threads())
        found.append(torch.get_num_threads())

    first, second = Thread(target=short), Thread(target=new)
    with enough_for(LITTLE + 1):  # whatever ran before: three are known
        pass
    first.start()
    assert lowered.wait(60)
    second.start()
    second.join()
    go_on.set()
    first.join()
    assert found == [1, 3, 1, 3], "the first is torch's own answer, without which there is nothing to mend"
    assert torch.get_num_threads() == 3


def test_one_thread_that_was_asked_for_is_one_for_new_threads_too() -> None:
    with enough_for(0):
        pass
    torch.set_num_threads(1)
    found = list[int]()

    def new() -> None:
        with enough_for(LITTLE + 1):
            found.append(torch.get_num_threads())

    (thread := Thread(target=new)).start()
    thread.join()
    assert found == [1]


def test_one_thread_is_one_for_anything() -> None:
    torch.set_num_threads(1)
    for work in (0, LITTLE + 1):
        with enough_for(work):
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 1


@known
def test_multiplications_are_those_of_a_tokens_matrices(name: str) -> None:
    model: Any = build(name)
    looked_up = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head = id(model.get_output_embeddings().weight)
    weights = sum(p.numel() for p in model.parameters() if p.ndim > 1 and id(p) not in looked_up | {head})
    assert multiplications_of(model.base_model) == weights


@both
def test_quantised_weights_count_as_well(dtype: str) -> None:
    model = narrow("Llama", dtype)
    assert multiplications_of(model.base_model) == multiplications_of(build("Llama", model.config).base_model)


def test_a_prompt_is_read_by_as_many_as_its_length_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = build("Llama"), set[int]()
    own = continuing(Decoder(model, 64), StatisticSettings("energy"))
    model.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    all_of = every(len(own.decoder.mlps), own.decoder.mlps[0].width)
    monkeypatch.setattr("coreinfer.threads.LITTLE", 8.5 * multiplications_of(model.base_model))
    for tokens, threads in ((8, 1), (9, 3)):
        own.prefill(torch.arange(1, tokens + 1)[None], all_of, Sampling(), Noise())
        assert seen == {threads}
        seen.clear()


def test_so_is_a_text_that_is_embedded(engine: Engine) -> None:
    seen = set[int]()
    embedder = engine.embedder
    inner = embedder.model[0].auto_model
    hook = inner.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    try:
        for words, threads in (("The tide goes out.", 1), ("The tide goes out at noon. " * 40, 3)):
            embedder.embed([words])
            assert seen == {threads}
            seen.clear()
    finally:
        hook.remove()
