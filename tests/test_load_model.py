"""Loading a language model, refusing what cannot be loaded, fingerprints."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from families import build
from families import one_thread as one_thread
from small_models import save_llama
from transformers import AutoModelForCausalLM, AutoTokenizer

from coreinfer.errors import CoreInferError
from coreinfer.models import find_mlps, fingerprint, load_model
from coreinfer.paths import DEMO_LM


def refused(name: str, dtype: str = "auto", device: str = "cpu") -> str:
    """The message with which ``load_model`` refuses, checked to be one line."""
    with pytest.raises(CoreInferError) as refusal:
        load_model(name, dtype, device)
    assert len(str(refusal.value).splitlines()) == 1
    return str(refusal.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved tiny Llama with the demo's tokenizer."""
    return save_llama(tmp_path, layers=2, width=48, context=64)


def test_a_saved_folder_loads(folder: Path) -> None:
    model, tokenizer = load_model(str(folder), "float32")
    assert fingerprint(model) == fingerprint(AutoModelForCausalLM.from_pretrained(folder))
    assert len(tokenizer) == model.config.vocab_size


def test_another_models_tokenizer_is_refused(tmp_path: Path) -> None:
    """It would end in an IndexError, or worse, in numbers."""
    build("Llama").save_pretrained(tmp_path)
    for path in DEMO_LM.glob("tokenizer*"):
        shutil.copyfile(path, tmp_path / path.name)
    assert "its tokenizer knows 8192 tokens and the model 96" in refused(str(tmp_path))


def test_tokens_added_to_a_tokenizer_may_stay_unused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<picture>"], special_tokens=True)
    tokenizer.save_pretrained(folder)
    model, loaded = load_model(str(folder), "float32")
    assert len(loaded) == model.config.vocab_size + 1


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    assert missing in refused(missing)
    assert "check the path" in refused(missing + ".gguf")
    assert "cannot load" in refused(str(tmp_path))


def test_a_wrong_dtype_is_refused() -> None:
    assert "'int3'" in refused("demo", "int3")


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(build("Llama").state_dict(), folder / "pytorch_model.bin")
    assert "safetensors" in refused(str(folder))


def test_a_damaged_weights_file_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot load" in refused(str(folder))


def test_a_damaged_gguf_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    assert "cannot load" in refused(str(tmp_path / "x.gguf"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_damaged_json_is_refused(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    if name == "tokenizer.json":
        (folder / "tokenizer_config.json").unlink()
    assert "cannot load" in refused(str(folder))


@pytest.mark.parametrize("change", [{"intermediate_size": 64}, {"num_hidden_layers": 3}])
def test_weights_that_do_not_fit_the_config_are_refused(folder: Path, change: dict[str, int]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    assert "cannot load" in refused(str(folder))


@pytest.mark.parametrize("device", ["cuda:99", *([] if torch.cuda.is_available() else ["cuda"])])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    assert "cannot load" in refused("demo", device=device)


def test_fingerprints_ignore_dtype_and_see_weights() -> None:
    model = build("Llama")
    before = fingerprint(model)
    assert fingerprint(build("Llama").bfloat16()) == before
    assert fingerprint(build("Mistral")) != before
    with torch.no_grad():
        model.get_submodule("model.layers.1.mlp.down_proj").weight.mul_(1.02)  # type: ignore[operator]
    assert fingerprint(model) != before


def test_the_demo_loads_and_is_the_same_in_both_dtypes() -> None:
    model, tokenizer = load_model("demo", "float32")
    assert not model.training
    assert next(model.parameters()).dtype == torch.float32
    assert len(find_mlps(model)) == model.config.num_hidden_layers
    assert len(tokenizer) <= model.config.vocab_size
    assert fingerprint(model) == fingerprint(load_model("demo", "bfloat16")[0])
