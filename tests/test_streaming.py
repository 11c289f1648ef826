"""Streams: the text of a whole generation, ended when closed, waited for; and the ways to generate."""

from typing import Any

import pytest
import torch
import transformers
from asking import FRENCH, PROMPT, same_set
from transformers import TextIteratorStreamer

from coreinfer import CoreInferError, Engine
from coreinfer.generation import Generation
from coreinfer.models import find_mlps
from coreinfer.settings import Policy
from coreinfer.slimming import slim

GenerationConfig: Any = transformers.GenerationConfig


def test_streaming_gives_the_same_text(engine: Engine) -> None:
    whole = engine.generate(PROMPT, keep=0.4, max_new_tokens=16)
    *pieces, last = engine.stream(PROMPT, keep=0.4, max_new_tokens=16)
    assert isinstance(last, Generation)
    assert "".join(str(piece) for piece in pieces) == last.text == whole.text
    assert len(pieces) > 2
    assert same_set(last.prediction, whole.prediction)


def test_closing_the_stream_ends_the_generation(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[int] = []
    put: Any = TextIteratorStreamer.put

    def counted(self: TextIteratorStreamer, value: Any) -> None:
        tokens.append(1)
        put(self, value)

    monkeypatch.setattr(TextIteratorStreamer, "put", counted)
    pieces = engine.stream(PROMPT, max_new_tokens=400)
    next(pieces)
    pieces.close()  # returns when the other thread is done
    assert len(tokens) < 200
    assert engine.generate(PROMPT, max_new_tokens=2).new_tokens == 2  # the model is usable, and not slim


def test_predictions_wait_for_an_open_stream(engine: Engine) -> None:
    """Another use of the model waits for a stream's thread, and sees the dense model."""
    alone = engine.predict(FRENCH, "stability", 0.4), engine.generate(FRENCH, "hybrid", 0.3, max_new_tokens=8)
    pieces = engine.stream(PROMPT, keep=0.2, max_new_tokens=60)
    said = [next(pieces)]
    assert same_set(engine.predict(FRENCH, "stability", 0.4), alone[0])
    more = engine.stream(PROMPT, keep=0.2, max_new_tokens=60)
    assert engine.generate(FRENCH, "hybrid", 0.3, max_new_tokens=8).text == alone[1].text
    assert [mlp.width for mlp in find_mlps(engine.model)] == [engine.artifact.manifest.width] * 6
    assert [*said, *pieces][:-1] == list(more)[:-1]


def test_an_engine_does_not_wait_for_what_may_never_end(engine: Engine) -> None:
    made = engine.predict(PROMPT, "similarity", 0.3)
    assert made.neurons is not None
    with slim(engine.model, made.neurons):
        for act in (engine.predict, engine.generate):
            with pytest.raises(CoreInferError, match="slim is already open on this model"):
                act(PROMPT, policy="stability")


def test_a_streamer_cannot_use_the_model_that_it_streams_from(engine: Engine) -> None:
    class Asking:
        def put(self, value: Any) -> None:
            engine.predict(FRENCH, "stability", 0.4)

        def end(self) -> None:
            pass

    with pytest.raises(
        CoreInferError, match=r"Engine\.generate is already open on this model and Capture needs it alone"
    ):
        engine.generate(PROMPT, "stability", 0.3, max_new_tokens=4, streamer=Asking())
    assert engine.generate(PROMPT, max_new_tokens=2).new_tokens == 2


@pytest.mark.parametrize("policy", ["similarity", "hybrid"])
@pytest.mark.parametrize(
    "option", [{"prompt_lookup_num_tokens": 3}, {"prefill_chunk_size": 4}, {"cache_implementation": "static"}], ids=str
)
def test_ways_to_generate_say_the_same(engine: Engine, policy: Policy, option: dict[str, Any]) -> None:
    plain = engine.generate(PROMPT, policy, 0.3, max_new_tokens=24)
    made = engine.generate(PROMPT, policy, 0.3, max_new_tokens=24, **option)
    assert made.text == plain.text
    assert same_set(made.prediction, plain.prediction)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "num_beams is 2.*inside `with slim"),
        ({"num_return_sequences": 2, "do_sample": True}, "num_return_sequences is 2"),
        ({"generation_config": GenerationConfig(num_beams=3)}, "num_beams is 3"),
        ({"input_ids": torch.ones(1, 3)}, "input_ids comes from the prompt"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate comes from"),
    ],
)
def test_what_cannot_be_streamed_is_refused(engine: Engine, options: dict[str, Any], said: str) -> None:
    with pytest.raises(CoreInferError, match=said):
        engine.generate(PROMPT, max_new_tokens=2, **options)
    with pytest.raises(CoreInferError, match=said):
        next(engine.stream(PROMPT, max_new_tokens=2, **options))
