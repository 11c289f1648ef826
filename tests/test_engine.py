"""What the engine takes: chats, long prompts, the models its artifact was built with; and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
from asking import PROMPT
from conftest import demo_texts

from coreinfer import CoreInferError, Engine
from coreinfer.embedder import Embedder
from coreinfer.hub import DEFAULT, embedder_place
from coreinfer.models import load_model
from coreinfer.prompts import Prompt

TURNS: Prompt = [
    {"role": "user", "content": "What is a cell wrapped in?"},
    {"role": "assistant", "content": "In a membrane."},
    {"role": "user", "content": "And what is that made of?"},
]


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
    embedder = Embedder(embedder_place(DEFAULT)).model  # by its folder: sentence-transformers reads it
    embedder.max_seq_length = 128
    embedder.save(str(tmp_path / "embedder"))
    with pytest.raises(
        CoreInferError, match=r"the embedder .* has other settings or another tokenizer: give that embedder"
    ):
        Engine.load(artifact, embedder=str(tmp_path / "embedder")).predict(PROMPT, "similarity")


def test_a_match_that_the_prompt_contradicts_is_worth_little() -> None:
    """Its embedding lands a Russian sentence at the Russian novels; its neurons are those of another script."""
    engine = Engine.load()
    known = engine.predict("Prince Andrew rode across the field beside the Emperor, and the guns fell silent.")
    other = engine.predict("Мы гуляли вдоль реки, пока не стемнело, и вернулись домой только к ужину.")
    assert known.source == other.source == "hybrid"
    assert known.worth is not None
    assert other.worth is not None
    assert other.worth < known.worth / 10
    assert other.reason.endswith("but the prompt's own neurons are others, so it counts less")
    assert "others" not in known.reason
