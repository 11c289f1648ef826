"""The official client against a live server: what it sends is understood, what it gets has its types."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import openai
import pytest
from serving import Live, live

from coreinfer.engine import Engine

PROMPT = "The river that runs through the old town"
MODEL = "demo"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Live]:
    with live(engine, plain_chat=True) as made:
        yield made


@pytest.fixture(scope="module")
def client(server: Live) -> Iterator[openai.OpenAI]:
    with server.openai as made:
        yield made


def test_a_completion_is_what_the_engine_makes(client: openai.OpenAI, engine: Engine) -> None:
    made = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=12, temperature=0)
    alone = engine.generate(PROMPT, max_new_tokens=12)
    assert isinstance(made, openai.types.Completion)
    assert (made.object, made.model, made.choices[0].text) == ("text_completion", MODEL, alone.text)
    assert made.choices[0].finish_reason == "length"
    assert made.usage is not None
    assert (made.usage.prompt_tokens, made.usage.completion_tokens) == (alone.prompt_tokens, 12)
    said: Any = (made.choices[0].model_extra or {})["coreinfer"]
    assert (said["source"], said["cluster"]) == (alone.prediction.source, alone.prediction.cluster)
    assert said["neurons"] == sum(alone.prediction.neurons.per_layer)  # type: ignore[union-attr]


def test_a_stream_has_the_same_text_and_usage(client: openai.OpenAI, server: Live) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 20, "temperature": 0}
    whole = client.completions.create(**how)
    chunks = list(client.completions.create(**how, stream=True, stream_options={"include_usage": True}))
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == whole.choices[0].text
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert len({chunk.id for chunk in chunks}) == 1
    with client.completions.with_streaming_response.create(**how, stream=True) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers["x-coreinfer-source"] == "hybrid"
        assert raw.headers["x-coreinfer-artifact"] == server.server.version.digest
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all(line.startswith("data: ") for line in lines)


def test_chat(client: openai.OpenAI, engine: Engine) -> None:
    turns: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What is "}, {"type": "text", "text": "a river?"}]},
    ]
    how: dict[str, Any] = {"model": MODEL, "messages": turns, "max_completion_tokens": 10, "temperature": 0}
    made = client.chat.completions.create(**how)
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is a river?"}]
    assert isinstance(made, openai.types.chat.ChatCompletion)
    message = made.choices[0].message
    assert (message.role, message.content) == ("assistant", engine.generate(plain, max_new_tokens=10).text)
    chunks = list(client.chat.completions.create(**how, stream=True))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == message.content
    content = message.content or ""
    with client.chat.completions.stream(**how, stop=content[-3:]) as events:  # the client's own accumulator
        assert events.get_final_completion().choices[0].message.content == content[: content.index(content[-3:])]


def test_an_answer_ends_where_the_model_goes_on_with_another_turn(
    client: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: Any = [{"role": "user", "content": "What is a river?"}]
    how: dict[str, Any] = {"model": MODEL, "messages": turns, "max_completion_tokens": 10, "temperature": 0}
    whole = client.chat.completions.create(**how).choices[0].message.content or ""
    monkeypatch.setattr("coreinfer.serve.service.next_turns", lambda tokenizer, turns: (whole[8:12],))
    ended = client.chat.completions.create(**how).choices[0]
    assert (ended.message.content, ended.finish_reason) == (whole[: whole.index(whole[8:12])], "stop")


def test_logprobs(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_tokens": 5}
    found = client.completions.create(**how, prompt=PROMPT, logprobs=3).choices[0]
    assert found.logprobs is not None
    assert "".join(found.logprobs.tokens or []) == found.text
    for chance, best in zip(found.logprobs.token_logprobs or [], found.logprobs.top_logprobs or [], strict=True):
        assert len(best) == 3
        assert chance == max(best.values()) <= 0
        assert sum(map(math.exp, best.values())) <= 1
    turns: Any = [{"role": "user", "content": PROMPT}]
    chat = client.chat.completions.create(**how, messages=turns, logprobs=True, top_logprobs=2).choices[0]
    assert chat.logprobs is not None
    entries = chat.logprobs.content or []
    assert bytes(b for entry in entries for b in entry.bytes or []).decode() == chat.message.content
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in entries)
    pieces = client.completions.create(**how, prompt=PROMPT, logprobs=0, stream=True)
    seen = [piece.choices[0].logprobs for piece in pieces]
    assert [x.token_logprobs[0] for x in seen if x and x.token_logprobs] == found.logprobs.token_logprobs


def test_stops_are_cut_off(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 24, "temperature": 0}
    text = client.completions.create(**how).choices[0].text
    stop = text[9:14]
    made = client.completions.create(**how, stop=["\x00never", stop]).choices[0]
    assert (made.text, made.finish_reason) == (text[: text.index(stop)], "stop")
    pieces = [chunk.choices[0] for chunk in client.completions.create(**how, stop=stop, stream=True)]
    assert "".join(piece.text for piece in pieces) == made.text
    assert pieces[-1].finish_reason == "stop"


def test_a_seed_decides(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 1.2, "top_p": 0.9}
    texts = [client.completions.create(**how, seed=seed).choices[0].text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    several = client.completions.create(**how, seed=1, n=3).choices
    assert [choice.index for choice in several] == [0, 1, 2]
    assert several[0].text == texts[0]
    assert len({choice.text for choice in several}) > 1
    again = (several[2].model_extra or {})["coreinfer"]["seed"]  # any of them can be had again
    assert client.completions.create(**how, seed=again).choices[0].text == several[2].text


@pytest.mark.parametrize("seed", [-(1 << 63), (1 << 63) - 1])
def test_any_seed_is_one(client: openai.OpenAI, seed: int) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": [PROMPT, "rice"], "max_tokens": 2, "temperature": 1.0, "n": 2}
    assert len(client.completions.create(**how, seed=seed).choices) == 4


def test_a_narrow_nucleus_is_greedy(client: openai.OpenAI) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8}
    greedy = client.completions.create(**how, temperature=0).choices[0].text
    assert client.completions.create(**how, temperature=1.5, top_p=0.0, seed=3).choices[0].text == greedy


def test_several_prompts_echo_and_tokens(client: openai.OpenAI, engine: Engine) -> None:
    prompts = [PROMPT, "Boil the rice, then"]
    made = client.completions.create(model=MODEL, prompt=prompts, max_tokens=4, temperature=0, echo=True)
    assert [choice.text for choice in made.choices] == [p + engine.generate(p, max_new_tokens=4).text for p in prompts]
    ids = engine.tokenizer(PROMPT)["input_ids"]
    by_ids = client.completions.create(model=MODEL, prompt=ids, max_tokens=4, temperature=0)
    assert PROMPT + by_ids.choices[0].text == made.choices[0].text


@pytest.mark.parametrize("policy", ["similarity", "stability", "dense"])
def test_a_policy_and_a_keep_of_ones_own(client: openai.OpenAI, engine: Engine, policy: Any) -> None:
    ours = {"policy": policy, "keep": 0.3}
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    raw = client.completions.with_raw_response.create(**how, extra_body=ours)
    alone = engine.generate(PROMPT, policy, 0.3, max_new_tokens=8)
    assert raw.parse().choices[0].text == alone.text
    assert raw.headers["x-coreinfer-policy"] == raw.headers["x-coreinfer-source"] == policy
    assert float(raw.headers["x-coreinfer-keep"]) == alone.prediction.keep
    assert float(raw.headers["x-coreinfer-similarity"]) == pytest.approx(alone.prediction.similarity, abs=1e-5)


def test_lossless_is_the_dense_text(client: openai.OpenAI, engine: Engine) -> None:
    how: dict[str, Any] = {"model": MODEL, "prompt": PROMPT, "max_tokens": 12, "temperature": 0}
    made = client.completions.create(**how, extra_body={"lossless": True, "keep": 0.2})
    assert made.choices[0].text == engine.generate(PROMPT, "dense", max_new_tokens=12).text


def test_models_and_embeddings(client: openai.OpenAI, engine: Engine) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object) == (MODEL, "model")
    made = client.embeddings.create(model=MODEL, input=[PROMPT, "rice"])  # base64, as the client asks for it
    wanted = engine.embedder.embed_each([PROMPT, "rice"])
    assert np.allclose([row.embedding for row in made.data], wanted, atol=1e-6)
    plain = client.embeddings.create(model=MODEL, input="rice", encoding_format="float")
    assert np.allclose(plain.data[0].embedding, wanted[1], atol=1e-6)
    with pytest.raises(openai.BadRequestError, match="input 1 has 5000 tokens, at most 4096 are embedded: cut it"):
        client.embeddings.create(model=MODEL, input=["rice", "a " * 5000])
    with pytest.raises(openai.BadRequestError, match="characters, surely more tokens than fit"):
        client.embeddings.create(model=MODEL, input="a" * 200_000)
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError, match="the model is 'other', here is 'demo'"):
        client.models.retrieve("other")


@pytest.mark.parametrize(
    ("body", "error", "words"),
    [
        ({"model": "gpt-4"}, openai.NotFoundError, "the model is 'gpt-4', here is 'demo'"),
        ({"prompt": "word " * 600}, openai.BadRequestError, "the model's context holds 512"),
        ({"prompt": " "}, openai.BadRequestError, "the prompt is empty"),
        ({"temperature": 3}, openai.BadRequestError, "temperature: Input should be less than or equal to 2"),
        ({"n": 5}, openai.BadRequestError, "n: Input should be less than or equal to 4"),
        ({"max_tokens": 10**6}, openai.BadRequestError, "max_tokens is 1000000: at most 512"),
        ({"presence_penalty": 1}, openai.BadRequestError, "presence_penalty"),
        ({"extra_body": {"colour": 1}}, openai.BadRequestError, "'colour' is not known here"),
        ({"extra_body": {"policy": "best"}}, openai.BadRequestError, "policy: Input should be 'auto'"),
        ({"extra_body": {"keep": 0.001}}, openai.BadRequestError, "keep is 0.001, the least that was calibrated is"),
        ({"echo": True, "logprobs": 1}, openai.BadRequestError, "leave out echo or logprobs"),
    ],
)
def test_errors_are_the_clients_own(client: openai.OpenAI, body: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        client.completions.create(**{"model": MODEL, "prompt": PROMPT, "max_tokens": 2, **body})
    said: Any = caught.value
    assert words in said.body["message"]
    assert set(said.body) == {"message", "type", "param", "code"}


def test_neutral_values_of_what_is_not_done_are_taken(client: openai.OpenAI) -> None:
    made = client.completions.create(
        model=MODEL, prompt=PROMPT, max_tokens=2, presence_penalty=0, frequency_penalty=0.0, user="me", best_of=1
    )
    assert made.choices[0].finish_reason == "length"
