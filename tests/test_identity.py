"""The identity of models: what changes numbers changes it, what does not leaves it alone."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from families import build
from families import one_thread as one_thread
from small_models import save_llama

from coreinfer.embedder import Embedder
from coreinfer.hub import DEFAULT, embedder_place
from coreinfer.identity import config_facts, identity, plain, setup_of
from coreinfer.manifest import ModelIdentity
from coreinfer.models import load_model
from coreinfer.paths import DEMO_CLUSTERS

Edit = Callable[[dict[str, Any]], Any]


def setup(folder: Path, dtype: str = "float32") -> str:
    return setup_of(*load_model(str(folder), dtype))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A tiny Llama with the demo's tokenizer, and its setup."""
    place = save_llama(tmp_path_factory.mktemp("llama"), layers=2, width=48, context=64)
    return place, setup(place)


@pytest.fixture
def folder(saved: tuple[Path, str], tmp_path: Path) -> Path:
    """The same Llama, to be changed."""
    return shutil.copytree(saved[0], tmp_path, dirs_exist_ok=True)


@pytest.fixture
def before(saved: tuple[Path, str]) -> str:
    return saved[1]


@pytest.fixture(scope="module")
def saved_embedder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelIdentity]:
    """The default embedder, saved by sentence-transformers, and its identity."""
    place = tmp_path_factory.mktemp("embedder") / "own"
    shutil.copytree(embedder_place(DEFAULT), place)
    Embedder(dtype="float32").model.save(str(place))
    return place, Embedder(str(place)).identity


def edited(folder: Path, name: str, edit: Edit) -> None:
    raw = json.loads((folder / name).read_text("utf-8"))
    edit(raw)
    (folder / name).unlink()  # it may be a link to the original
    (folder / name).write_text(json.dumps(raw), "utf-8")


def swap(raw: dict[str, Any]) -> None:
    words = raw["model"]["vocab"]
    a, b = list(words)[300:302]
    words[a], words[b] = words[b], words[a]


CONFIG: dict[str, Edit] = {
    "activation": lambda raw: raw.update(hidden_act="gelu"),
    "norm": lambda raw: raw.update(rms_norm_eps=1e-3),
    "rope": lambda raw: raw["rope_parameters"].update(rope_theta=5e5),
    "heads": lambda raw: raw.update(num_attention_heads=4, head_dim=8, num_key_value_heads=2, attention_multiplier=2),
}
TOKENIZER: dict[str, Edit] = {
    "vocabulary": swap,
    "merges": lambda raw: raw["model"]["merges"].pop(4000),
    "lower case": lambda raw: raw.update(normalizer={"type": "Lowercase"}),
    "beginning": lambda raw: raw.update(post_processor=None),
}


def test_dtype_saving_and_the_last_digits_do_not_matter(folder: Path, before: str) -> None:
    assert setup(folder, "bfloat16") == before
    model, tokenizer = load_model(str(folder), "float32")
    model.save_pretrained(folder / "again")
    tokenizer.save_pretrained(folder / "again")
    assert setup(folder / "again") == before
    edited(
        folder, "config.json", lambda raw: raw.update(rms_norm_eps=9.999999974752427e-07, use_cache=False)
    )  # as GGUF has it
    assert setup(folder) == before


@pytest.mark.parametrize("change", CONFIG)
def test_a_setting_that_changes_the_function_is_seen(folder: Path, before: str, change: str) -> None:
    edited(folder, "config.json", CONFIG[change])
    assert setup(folder) != before


@pytest.mark.parametrize("change", TOKENIZER)
def test_another_tokenizer_is_seen(folder: Path, before: str, change: str) -> None:
    edited(folder, "tokenizer.json", TOKENIZER[change])
    assert setup(folder) != before


def test_numbers_to_six_digits() -> None:
    assert plain({"b": 1e-6, "a": [1, None], "c": None, "d": True}) == {"a": ["1", None], "b": "1e-06", "d": True}
    assert plain(0.1 + 0.2) == plain(0.3)
    assert config_facts(build("Gemma2").config)["attn_logit_softcapping"] == "50"


def test_the_shipped_clusters_know_the_shipped_models() -> None:
    stored = json.loads((DEMO_CLUSTERS / "manifest.json").read_text("utf-8"))
    made = identity("demo", *load_model("demo"), longest=512)
    assert (made.weights, made.setup) == (stored["model"]["weights"], stored["model"]["setup"])
    vectors = Embedder().identity
    assert (vectors.weights, vectors.setup) == (stored["embedder"]["weights"], stored["embedder"]["setup"])


def test_saving_does_not_change_an_embedder(saved_embedder: tuple[Path, ModelIdentity]) -> None:
    assert saved_embedder[1].setup == Embedder(dtype="float32").setup


EMBEDDER: dict[str, tuple[str, Edit]] = {
    "pooling": ("1_Pooling/config.json", lambda raw: raw.update(pooling_mode="cls")),
    "window": ("sentence_bert_config.json", lambda raw: raw.update(max_seq_length=128)),
    "normalisation": ("modules.json", lambda raw: cast(Any, raw).pop()),
    "prompt": (
        "config_sentence_transformers.json",
        lambda raw: raw.update(prompts={"query": "query: "}, default_prompt_name="query"),
    ),
    "tokenizer": ("tokenizer_config.json", lambda raw: raw.update(do_lower_case=False)),
    "activation": ("config.json", lambda raw: raw.update(hidden_act="relu")),
}


@pytest.mark.parametrize("change", EMBEDDER)
def test_what_decides_vectors_is_seen(saved_embedder: tuple[Path, ModelIdentity], tmp_path: Path, change: str) -> None:
    (place, before), (name, edit) = saved_embedder, EMBEDDER[change]
    shutil.copytree(place, tmp_path / "own", copy_function=os.link)
    edited(tmp_path / "own", name, edit)
    after = Embedder(str(tmp_path / "own")).identity
    assert after.setup != before.setup
    assert after.weights == before.weights
