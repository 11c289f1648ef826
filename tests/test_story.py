"""The story end to end on real text and the shipped models: build, inspect, predict, generate."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import CLUSTERS, demo_texts, tree
from transformers import TextIteratorStreamer

from coreinfer import Artifact, CoreInferError, Engine
from coreinfer.capture import Capture, valid_tokens
from coreinfer.embedder import Embedder
from coreinfer.engine import Generation
from coreinfer.models import find_mlps, load_model
from coreinfer.neurons import mix, mixture_weights, overlap, top
from coreinfer.output import artifact_facts
from coreinfer.policy import Prediction
from coreinfer.prompts import Prompt
from coreinfer.settings import Policy
from coreinfer.slimming import slim
from pipeline.build import BuildSettings, build_clusters
from pipeline.record import Recorder

GenerationConfig: Any = transformers.GenerationConfig
PROMPT = "Every living cell is wrapped in a plasma membrane, a film that"
FRENCH = "Les élèves de la classe ont chanté une vieille chanson près de la rivière, puis"
TURNS: Prompt = [
    {"role": "user", "content": "What is a cell wrapped in?"},
    {"role": "assistant", "content": "In a membrane."},
    {"role": "user", "content": "And what is that made of?"},
]


def same_set(a: Prediction, b: Prediction) -> bool:
    assert a.neurons is not None
    assert b.neurons is not None
    return all(np.array_equal(x, y) for x, y in zip(a.neurons.layers, b.neurons.layers, strict=True))


def test_build_inspect_predict_generate(artifact: Path, engine: Engine) -> None:
    facts = artifact_facts(Artifact.load(artifact))
    assert len(facts["clusters"]) == CLUSTERS
    assert sum(row["size"] for row in facts["clusters"]) == facts["passages"] == 57  # 3 of 60 are held out
    assert all(row["terms"] for row in facts["clusters"])
    about_cells = next(row["cluster"] for row in facts["clusters"] if "membrane" in row["terms"])
    made = engine.generate(PROMPT, keep=0.4, max_new_tokens=8)
    assert made.prediction.source == "hybrid"
    assert made.prediction.cluster == about_cells
    assert made.prediction.neurons is not None
    assert made.prediction.neurons.per_layer == engine.artifact.budgets(0.4).tolist()
    assert (made.new_tokens, made.prompt_tokens) == (8, len(engine.tokenizer(PROMPT)["input_ids"]))
    assert made.text.strip()
    assert made.first_token_s > 0
    assert made.tokens_per_second > 0


def test_online_repeats_what_was_recorded_offline(engine: Engine) -> None:
    """The recorder pads and batches, the engine runs one text alone.

    In float32 the numbers agree to rounding, so the sets are the same but for neurons that tie with the last one kept
    within that rounding. In bfloat16, in which most artifacts are built, a batch rounds otherwise than a text alone: of
    60 such texts' sets at keep 0.2 and 0.4, 99.9% of the neurons were the same on average and 99.7% at worst.
    """
    texts = demo_texts(5, 300)
    settings = engine.artifact.manifest.statistic
    recorder = Recorder(engine.model, engine.tokenizer, settings, 512)
    recorded = np.concatenate([shares[np.argsort(picked)] for picked, shares, _ in recorder.shares(texts)])
    budgets = engine.artifact.budgets(0.4)
    for text, offline in zip(texts, recorded, strict=True):
        ids = engine.encode(text)
        with Capture(engine.model, settings) as capture, torch.inference_mode():
            capture.expect(valid_tokens(ids, None, 0))
            engine.model(input_ids=ids)
            online = capture.shares()[0]
        np.testing.assert_allclose(online, offline, rtol=1e-4, atol=1e-9)
        stable = engine.predict(text, "stability", 0.4).neurons
        assert stable is not None
        for row, ours, theirs in zip(offline, stable.layers, top(offline, budgets).layers, strict=True):
            edge = row[theirs].min()
            np.testing.assert_allclose(row[np.setxor1d(ours, theirs)], edge, rtol=1e-4)


def test_predicted_set_is_the_set_that_decodes(engine: Engine) -> None:
    policies: tuple[Policy, ...] = ("similarity", "stability", "hybrid")
    for policy in policies:
        predicted = engine.predict(PROMPT, policy, 0.3)
        decoded = engine.generate(PROMPT, policy, 0.3, max_new_tokens=2).prediction
        assert same_set(predicted, decoded), policy
        assert replace(predicted, neurons=None) == replace(decoded, neurons=None)


def test_similarity_set_is_the_top_of_the_mixture(engine: Engine) -> None:
    """Recomputed from the stored numbers: nearest centroids, softmax weights, mixed priors, the best under budgets."""
    artifact = engine.artifact
    vector = engine.embedder.embed([PROMPT])[0]
    similarities = artifact.centroids @ vector
    nearest = np.argsort(-similarities)[: artifact.policy.mixture]
    weights = mixture_weights(similarities[nearest], artifact.policy.sharpness)
    prior = mix(np.stack([artifact.prior(int(c)) for c in nearest]), weights)
    for keep in (0.05, 0.33, 1.0):
        made = engine.predict(PROMPT, "similarity", keep)
        expected = top(prior, artifact.budgets(keep))
        assert made.neurons is not None
        assert overlap(made.neurons, expected) > 0.9995
        assert made.neurons.per_layer == expected.per_layer
    assert made.cluster == nearest[0]
    assert made.similarity == pytest.approx(float(similarities[nearest[0]]), abs=1e-5)


def test_one_seed_makes_one_artifact(artifact: Path, settings: BuildSettings, tmp_path: Path) -> None:
    build_clusters(settings, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(artifact)
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_keeping_everything_changes_nothing(engine: Engine) -> None:
    """Token for token what the plain model says, for each policy at keep 1."""
    ids = engine.encode(PROMPT)
    plain = engine.model.generate(input_ids=ids, max_new_tokens=24, do_sample=False)
    text = engine.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
    policies: tuple[Policy, ...] = ("dense", "similarity", "stability", "hybrid", "auto")
    for policy in policies:
        assert engine.generate(PROMPT, policy, 1.0, max_new_tokens=24).text == text, policy
    again = engine.model.generate(input_ids=ids, max_new_tokens=24, do_sample=False)
    assert torch.equal(plain, again)  # the model is left as it was


def test_fewer_neurons_change_the_text_but_not_the_first_token(engine: Engine) -> None:
    dense = engine.generate(PROMPT, "dense", max_new_tokens=24)
    few = engine.generate(PROMPT, "similarity", 0.01, max_new_tokens=24)
    assert few.text != dense.text
    first = [engine.tokenizer(made.text)["input_ids"][:1] for made in (dense, few)]
    assert first[0] == first[1]  # prefill is dense


@pytest.mark.parametrize("prompt", [FRENCH, "zxqv 9913 kkrr ## @@ plonk"])
def test_weak_match_falls_back_and_says_so(artifact: Path, engine: Engine, prompt: str) -> None:
    loaded = Artifact.load(artifact)
    strict = Engine(replace(loaded, policy=replace(loaded.policy, threshold=0.9)), dtype="float32")
    strict.__dict__.update(embedder=engine.embedder, _lm=(engine.model, engine.tokenizer))  # loaded already
    made = strict.predict(prompt)
    assert (made.policy, made.source, made.threshold) == ("auto", "stability", 0.9)
    assert made.similarity < 0.9
    assert made.reason.startswith("weak match")
    assert f"{made.similarity:.3f}" in made.reason
    assert "0.900" in made.reason
    assert same_set(made, strict.predict(prompt, "stability"))
    asked = strict.predict(prompt, "similarity")
    assert asked.source == "similarity"  # what was asked for is done, and the weakness said
    assert "weak" in asked.reason


def test_turns_of_a_chat(engine: Engine) -> None:
    made = engine.generate(TURNS, "stability", 0.5, max_new_tokens=4)
    assert made.new_tokens == 4
    shown = "User: What is a cell wrapped in? Assistant: In a membrane. User: And what is that made of? Assistant:"
    assert made.text == engine.generate(shown, "stability", 0.5, max_new_tokens=4).text
    assert engine.encode(TURNS).tolist() == engine.encode(shown).tolist()
    joined = engine.match(["What is a cell wrapped in?\nIn a membrane.\nAnd what is that made of?"])[0]
    assert made.prediction.similarity == pytest.approx(joined.similarity, abs=1e-6)


@pytest.mark.parametrize("prompt", [[], [{"role": "user"}], [{"role": "user", "content": 5}], [{}], 5, None, "\ud83d"])
def test_what_is_no_prompt_is_refused(engine: Engine, prompt: Prompt) -> None:
    with pytest.raises(CoreInferError, match="the prompt"):
        engine.predict(prompt)


def test_prompt_longer_than_the_embedder_window(engine: Engine) -> None:
    """Two windows are one vector, in which the last window weighs twice as much as the one before."""
    text = " ".join(demo_texts(20, 90))
    windows = engine.embedder.windows([text])[0]
    assert len(windows) == 2
    first, second = engine.embedder.embed(windows)
    mixed = (first * 0.5 + second) / np.linalg.norm(first * 0.5 + second)
    np.testing.assert_allclose(engine.embedder.embed([text])[0], mixed, atol=2e-3)
    made = engine.generate(text, keep=0.4, max_new_tokens=2)
    assert made.prompt_tokens > engine.embedder.window
    assert made.prediction.neurons is not None


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

    with pytest.raises(CoreInferError, match="slim is already open on this model and Capture needs it alone"):
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


def test_another_tokenizer_or_embedder_is_refused(artifact: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model("demo")
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    assert Engine.load(artifact, model=str(tmp_path / "lm")).predict(PROMPT, "stability").neurons is not None
    words = json.loads((tmp_path / "lm/tokenizer.json").read_text("utf-8"))
    words["normalizer"] = {"type": "Lowercase"}
    (tmp_path / "lm/tokenizer.json").write_text(json.dumps(words), "utf-8")
    with pytest.raises(CoreInferError, match="the same shape but other settings or another tokenizer: give that model"):
        Engine.load(artifact, model=str(tmp_path / "lm")).predict(PROMPT, "stability")
    embedder = Embedder().model
    embedder.max_seq_length = 128
    embedder.save(str(tmp_path / "embedder"))
    with pytest.raises(
        CoreInferError, match=r"the embedder .* has other settings or another tokenizer: give that embedder"
    ):
        Engine.load(artifact, embedder=str(tmp_path / "embedder")).predict(PROMPT, "similarity")


def test_context_is_filled_but_not_exceeded(engine: Engine) -> None:
    text = " ".join(demo_texts(20, 300))
    ids = engine.tokenizer(text)["input_ids"]
    fits = engine.tokenizer.decode(ids[:509])
    made = engine.generate(fits, max_new_tokens=64)
    assert made.prompt_tokens + made.new_tokens <= 512
    for act in (engine.predict, engine.generate):
        with pytest.raises(CoreInferError, match=rf"the prompt has {len(ids)} tokens.*holds 512: shorten"):
            act(text, policy="stability")
    with pytest.raises(CoreInferError, match="512"):
        next(engine.stream(text))
