"""A sliced model as a plain checkpoint: what another program loads from it computes what the set says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, LAYERS, WIDTH, build, down_modules, tokens
from families import one_thread as one_thread
from safetensors import safe_open
from slow_truths import naive, some
from transformers import AutoModelForCausalLM, AutoTokenizer

from coreinfer.artifact import Artifact
from coreinfer.errors import CoreInferError
from coreinfer.export import run
from coreinfer.export.card import About, Sizes, card, loss_in_words
from coreinfer.export.choosing import Chosen, of_clusters, uniform
from coreinfer.export.run import write_models
from coreinfer.export.targets import why_not
from coreinfer.export.writing import Writer
from coreinfer.neurons import NeuronSet, every
from coreinfer.paths import DEMO_CLUSTERS, DEMO_LM

ABOUT = About("someone/a-model", "a" * 64, "b" * 64, ({"keep": 0.2, "rise": 0.32, "rise_high": 0.4},))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO_LM)


def chosen(neurons: NeuronSet, name: str = "cluster-3") -> Chosen:
    return Chosen(name, 3, neurons, 0.3, "cluster 3 (9 passages)", ("a|b", "c"))


def exported(model: Any, tokenizer: Any, target: str, place: Path, neurons: NeuronSet, kind: str = "f32") -> Any:
    write_models(model, tokenizer, [chosen(neurons)], ABOUT, target, kind, place)
    return place


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_computes_the_set(name: str, tokenizer: Any, tmp_path: Path) -> None:
    """Layers keep 20 and 13 of 48: the second is filled up with zeros. The prompt runs on them as well."""
    model, ids = build(name), tokens(1, 30)
    wanted = naive(model, down_modules(model, name), some(), ids, 0)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        exported(model, tokenizer, "transformers", tmp_path / "x", some())
    )
    with torch.no_grad():
        found = loaded(input_ids=ids).logits
    assert torch.allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(found, naive(model, down_modules(model, name), some(seed=4), ids, 0), atol=1e-2)
    assert loaded.num_parameters() < model.num_parameters()


@pytest.mark.parametrize("name", ["Llama", "Phi3", "GPT2"])
def test_safetensors_have_the_sets_neurons_and_no_more(name: str, tokenizer: Any, tmp_path: Path) -> None:
    model = build(name)
    place = exported(model, tokenizer, "safetensors", tmp_path / "x", some())
    state = model.state_dict()
    with safe_open(place / "model.safetensors", "pt") as file:
        held = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    dropped = WIDTH * LAYERS - sum(some().per_layer)
    each = {"Llama": 3 * 32 + 2, "Phi3": 3 * 32, "GPT2": 2 * 32 + 1}[name]
    # Tied heads are the embedding: it is there once.
    whole = sum(x.numel() for x in {(x.data_ptr(), x.shape): x for x in state.values()}.values())
    assert sum(x.numel() for x in held.values()) == whole - dropped * each
    assert json.loads((place / "config.json").read_text("utf-8"))["intermediate_sizes"] == some().per_layer
    if name == "Llama":
        ids = torch.from_numpy(some().layers[1]).long()
        gate = state["model.layers.1.mlp.gate_proj.weight"]
        assert torch.equal(held["model.layers.1.mlp.gate_proj.weight"], gate[ids])
        assert torch.equal(
            held["model.layers.1.mlp.down_proj.weight"], state["model.layers.1.mlp.down_proj.weight"][:, ids]
        )


def test_what_comes_along(tokenizer: Any, tmp_path: Path) -> None:
    model = build("Llama")
    model.generation_config.temperature, model.generation_config.do_sample = 0.7, True
    mine = AutoTokenizer.from_pretrained(DEMO_LM)
    mine.chat_template = "{{ messages[0]['content'] }}"
    place = exported(model, mine, "transformers", tmp_path / "x", some(), "bf16")
    loaded: Any = AutoModelForCausalLM.from_pretrained(place)
    assert loaded.dtype == torch.bfloat16
    assert loaded.generation_config.temperature == 0.7
    again = AutoTokenizer.from_pretrained(place)
    assert again.chat_template == mine.chat_template
    assert again("Some words.")["input_ids"] == mine("Some words.")["input_ids"]


def test_the_card(tmp_path: Path) -> None:
    said = card(chosen(some()), ABOUT, "gguf", "q8_0", Sizes(600, 1000, 500, 12), False)
    assert "base_model: someone/a-model" in said
    assert "manifest sha256 " + "b" * 64 in said
    assert "cluster 3 (9 passages)" in said
    assert "a¦b, c" in said
    assert "0.3: 33 of 96 neurons; by layer 20, 13" in said
    assert "600 of the dense model's 1,000 (60.0%; ideal 50.0%)" in said
    assert "0.280 nats per token, at most 0.350 (95%), between measured keeps" in said
    assert "12, since the format wants other widths" in said
    assert "base_model" not in card(
        chosen(some()), About("demo", "a" * 64, None), "gguf", "f32", Sizes(1, 1, 1, 0), False
    )


def test_nobody_measured_uniform_budgets() -> None:
    said = card(chosen(some()), ABOUT, "transformers", "f32", Sizes(600, 1000, 500, 0), True)
    assert "| loss | not measured for uniform budgets |" in said
    assert "nats per token" not in said


def test_what_a_keep_costs_in_words() -> None:
    curve = ({"keep": 0.2, "rise": 0.3, "rise_high": 0.4}, {"keep": 0.4, "rise": 0.1, "rise_high": 0.2})
    assert loss_in_words(curve, 0.4) == "0.100 nats per token, at most 0.200 (95%)"
    assert loss_in_words(curve, 0.7) == "0.050 nats per token, at most 0.100 (95%), between measured keeps"
    assert loss_in_words(curve, 0.1).startswith("more than 0.300 nats per token, which keep 0.2 costs")
    assert loss_in_words((), 0.4) == "not measured"
    assert loss_in_words(curve, 1.0).startswith("none")


@pytest.mark.parametrize("target", ["transformers", "safetensors", "gguf"])
def test_sizes_are_those_of_the_files(target: str, tokenizer: Any, tmp_path: Path) -> None:
    model = build("Llama")
    writer = Writer(model, tokenizer, target, "f32")
    planned = writer.planned(some())
    planned.write(tmp_path)
    file = tmp_path / ("model.gguf" if target == "gguf" else "model.safetensors")
    assert planned.size <= file.stat().st_size < planned.size + (1 << 20)
    sizes = writer.sizes(planned, some())
    assert sizes.added == (7 if target == "transformers" else 0)
    biases = 2 * 4 * (96 - 33)  # of gate and up, which the ideal does not count
    assert sizes.ideal - sizes.written == biases - 7 * 4 * (3 * 32 + 2) * (target == "transformers")
    dense = writer.planned(every(LAYERS, WIDTH))
    assert dense.size == sizes.dense


def test_uniform_budgets_fill_nothing_up() -> None:
    opened = Artifact.load(DEMO_CLUSTERS)
    for keep in (0.1, 0.4, 1.0):
        assert set(uniform(opened).budgets(keep).tolist()) == {round(2560 * keep)}
    [one] = of_clusters(uniform(opened), [5], 0.25)
    assert one.neurons.per_layer == [640] * 6
    assert one.cluster == 5
    assert len(one.terms) == 8


def test_models_that_a_runtime_cannot_hold(tokenizer: Any, tmp_path: Path) -> None:
    model = build("OPT")
    assert why_not("onnx", model) is why_not("transformers", model) is None
    with pytest.raises(CoreInferError, match=r"gguf cannot hold this OPTForCausalLM: the architecture 'opt'; it can go --to transformers, onnx, safetensors"):  # fmt: skip # noqa: E501
        exported(model, tokenizer, "gguf", tmp_path / "x", some())
    with pytest.raises(CoreInferError, match="onnx cannot hold this GPT2LMHeadModel"):
        exported(build("GPT2"), tokenizer, "onnx", tmp_path / "x", some())
    assert list(tmp_path.iterdir()) == []


def test_no_room(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROOM", 1 << 60)
    with pytest.raises(CoreInferError, match=r"the export takes .* GB free: free some space"):
        exported(build("Llama"), tokenizer, "transformers", tmp_path / "x", some())
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_leaves_nothing(tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coreinfer.export.writing.write_beside", full)
    with pytest.raises(CoreInferError, match="No space left on device; free some space"):
        exported(build("Llama"), tokenizer, "transformers", tmp_path / "x", some())
    assert list(tmp_path.iterdir()) == []


def test_several_models(tokenizer: Any, tmp_path: Path) -> None:
    model = build("Llama")
    several = [chosen(some(), "cluster-3"), chosen(some(seed=4), "cluster-4")]
    write_models(model, tokenizer, several, ABOUT, "safetensors", "f32", tmp_path / "x")
    said = json.loads((tmp_path / "x" / "models.json").read_text("utf-8"))
    assert [one["folder"] for one in said["models"]] == ["cluster-3", "cluster-4"]
    assert all((tmp_path / "x" / f"cluster-{n}" / "model.safetensors").is_file() for n in (3, 4))
