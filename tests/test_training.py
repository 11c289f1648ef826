"""Training from scratch: a tokenizer of its own, a fresh model, and the command that makes the demo LM."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapting import Hashing
from conftest import write_corpus
from families import one_thread as one_thread
from hypothesis import given, settings
from hypothesis import strategies as st

from coreinfer import CoreInferError, load_model
from coreinfer.models import find_mlps
from pipeline.adapt import run
from training.tokens import END, read_texts, train_tokenizer
from training.train_lm import main, make_model, tokenizer_for

WIDTH, LAYERS, CONTEXT = 40, 2, 32
SENTENCES = ["The river carries water to the sea.", "A wheel turns; the engine drives it.", "Zwölf Boxkämpfer 東京 🍕"]


def test_a_tokenizer_round_trips() -> None:
    made = train_tokenizer(SENTENCES * 5, 300)
    assert 256 < len(made) <= 300

    @given(st.text())
    @settings(max_examples=50, deadline=None)
    def any_text(text: str) -> None:
        ids = made(text)["input_ids"]
        assert ids[0] == made.bos_token_id == made.convert_tokens_to_ids(END) == 0
        assert 0 not in ids[1:]
        assert made.decode(ids[1:]) == text

    any_text()


def test_the_fresh_model_is_the_demos() -> None:
    with torch.device("meta"):
        model = make_model(8192, 320, 6, 5, 2560, 512)
    shipped = load_model("demo", "float32")[0]
    wanted = {name: tuple(p.shape) for name, p in shipped.named_parameters()}
    assert {name: tuple(p.shape) for name, p in model.named_parameters()} == wanted
    ours, theirs = model.config.to_diff_dict(), shipped.config.to_diff_dict()
    for name in ("hidden_act", "rope_parameters", "max_position_embeddings", "tie_word_embeddings", "bos_token_id"):
        assert ours.get(name) == theirs.get(name)


def test_another_tokenizer_is_taken_or_refused(tmp_path: Path) -> None:
    assert len(tokenizer_for("", "artifacts/demo/lm", 0)) == 8192
    with pytest.raises(CoreInferError, match="cannot load the tokenizer"):
        tokenizer_for("", str(tmp_path), 0)
    other = train_tokenizer(SENTENCES, 300)
    other.bos_token = "a"
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CoreInferError, match="begins texts with token"):
        tokenizer_for("", str(tmp_path / "other"), 0)


def test_the_command_makes_a_model_that_loads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "open_embedder", lambda name, artifact, device: (Hashing(), None))
    output = tmp_path / "lm"
    texts = [f"{sentence} Number {i}." for i in range(20) for sentence in SENTENCES]
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts)
    assert read_texts(str(corpus)) == texts
    small: dict[str, Any] = {"vocabulary": 300, "hidden": 24, "layers": LAYERS, "heads": 3, "width": WIDTH}
    small |= {"context": CONTEXT, "batch": 2, "micro": 2, "steps": 2, "report_every": 1, "device": "cpu"}
    main(str(corpus), output, **small)
    said = capsys.readouterr().out
    assert "step 2 of 2" in said
    assert "similarity" in said
    model, tokenizer = load_model(str(output), "float32")
    assert [mlp.width for mlp in find_mlps(model)] == [WIDTH] * LAYERS
    assert "a new model, trained" in (output / "README.md").read_text("utf-8")
    again = train_tokenizer(texts, 300)
    for text in SENTENCES:
        ids = tokenizer(text)["input_ids"]
        assert ids == again(text)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert model(input_ids=torch.tensor([ids])).logits.shape == (1, len(ids), len(tokenizer))
    with pytest.raises(CoreInferError, match="exists already"):
        main(str(corpus), output, **small)
    with pytest.raises(CoreInferError, match="a window takes"):
        main(str(corpus), tmp_path / "other", **{**small, "context": 100_000})
    assert not (tmp_path / "other").exists()
