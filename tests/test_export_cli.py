"""``coreinfer export`` as a user calls it: a cluster's model, a prompt's, sets, rounding, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from conftest import run_cli, tree
from families import one_thread as one_thread
from safetensors import safe_open
from slow_truths import some
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from coreinfer.artifact import Artifact
from coreinfer.export.bits import Origin, SetFile, write_sets
from coreinfer.export.origin import origin_of
from coreinfer.layout import Layout
from coreinfer.manifest import sha256_of
from coreinfer.models import load_model
from coreinfer.paths import DEMO_CLUSTERS, DEMO_LM


def test_from_the_command_line(tmp_path: Path) -> None:
    """A cluster of the demo, as Transformers loads it; a prompt's set; and the sets themselves."""
    made = run_cli("export", "--to", "transformers", "--cluster", 3, "-o", tmp_path / "three", "--json", "-q")
    assert made.code == 0, made.err
    [row] = made.rows
    assert row["neurons_per_layer"] == [1024] * 6
    assert row["bytes"] == row["ideal_bytes"]
    assert row["bytes"] / row["dense_bytes"] == pytest.approx(0.5538, abs=1e-4)
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "three")
    opened = Artifact.load(DEMO_CLUSTERS)
    dense: Any = AutoModelForCausalLM.from_pretrained(DEMO_LM)
    ids = torch.from_numpy(opened.core(opened.prior(3), 0.4).layers[2]).long()
    assert torch.equal(loaded.model.layers[2].mlp.up_proj.weight, dense.model.layers[2].mlp.up_proj.weight[ids])
    digest = sha256_of(Layout(DEMO_CLUSTERS).manifest)
    assert digest in (tmp_path / "three" / "README.md").read_text("utf-8")

    sets = run_cli("export", "--to", "numpy", "-o", tmp_path / "sets", "--keep", 0.2, "-q")
    assert sets.code == 0, sets.err
    found = SetFile.load(tmp_path / "sets" / "sets.bits")
    assert found.clusters == tuple(range(-1, 128))
    assert found.origin == Origin(opened.manifest.model.weights, opened.manifest.model.setup, digest)
    assert found.read(7) == opened.core(opened.prior(7), 0.2)
    again = run_cli("export", "--to", "gguf", "--neurons", tmp_path / "sets" / "sets.bits", "-c", 7,
                    "-o", tmp_path / "seven", "--json", "-q")  # fmt: skip
    assert again.code == 0, again.err
    assert again.rows[0]["neurons_per_layer"] == [512] * 6


def test_a_prompts_set(tmp_path: Path) -> None:
    prompt = "Question: how fast does a ball fall? Answer:"
    made = run_cli("export", "--to", "safetensors", "--prompt", prompt, "--policy", "stability", "-k", 0.3,
                   "-o", tmp_path / "x", "--json", "-q")  # fmt: skip
    assert made.code == 0, made.err
    predicted = run_cli("predict", prompt, "--policy", "stability", "-k", 0.3, "--json", "--with-neurons", "-q").rows[0]
    with safe_open(tmp_path / "x" / "model.safetensors", "pt") as file:
        found = file.get_tensor("model.layers.5.mlp.gate_proj.weight")
    dense: Any = AutoModelForCausalLM.from_pretrained(DEMO_LM)
    assert torch.equal(found, dense.model.layers[5].mlp.gate_proj.weight[torch.tensor(predicted["neurons"][5])])


def test_eight_bits_are_rounded_from_the_checkpoints_own_numbers(tmp_path: Path) -> None:
    """Not from bfloat16: that would round a float32 model twice."""
    torch.manual_seed(0)
    tokenizer: Any = AutoTokenizer.from_pretrained(DEMO_LM)
    model: Any = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    ))  # fmt: skip
    model.save_pretrained(tmp_path / "lm")
    tokenizer.save_pretrained(tmp_path / "lm")
    write_sets(tmp_path / "x.bits", origin_of(*load_model(str(tmp_path / "lm"))), 0.3, [(3, some())], "move it")
    made = run_cli("export", "--to", "gguf", "--weights", "q8_0", "--neurons", tmp_path / "x.bits", "-c", 3,
                   "-m", tmp_path / "lm", "-o", tmp_path / "x", "-q")  # fmt: skip
    assert made.code == 0, made.err
    held = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "x" / "model.gguf").tensors}
    weight = model.model.layers[0].self_attn.v_proj.weight.detach()
    once, twice = (
        gguf.quants.quantize(each.float().numpy(), gguf.GGMLQuantizationType.Q8_0)
        for each in (weight, weight.bfloat16())
    )
    assert (held["blk.0.attn_v.weight"] == once).all()
    assert (once != twice).any()


BAD: list[tuple[tuple[object, ...], str]] = [
    (("--to", "onyx", "-c", 3), "--to is 'onyx': choose one of transformers, gguf, onnx, safetensors, numpy, arrow"),
    (("--to", "onnx", "-c", 3, "--weights", "q8_0"), "--weights of onnx is 'q8_0': choose one of f32"),
    (("--to", "numpy", "--weights", "f32"), "--weights f32 has no place in neuron sets"),
    (("--to", "gguf"), "nothing says which neurons to keep: give --cluster C, --prompt TEXT or --all"),
    (("--to", "gguf", "-c", 3, "--all"), "--cluster and --all all say which neurons to keep"),
    (("--to", "gguf", "-c", 3, "-c", 3), "--cluster is given as 3, 3: give each once"),
    (("--to", "gguf", "-c", 128), "there is no cluster 128: give -1 (the global prior) to 127"),
    (("--to", "gguf", "-c", 3, "--policy", "stability"), "--policy stability takes neurons from a prompt"),
    (("--to", "gguf", "-c", 3, "-k", 1.5), "--keep is 1.5"),
    (("--to", "gguf", "-c", 3, "-a", "nowhere"), "no artifact at nowhere"),
    (("--to", "json", "--prompt", "Some words"), "--to json holds clusters' sets: leave out --prompt"),
    (("--to", "gguf", "-c", 3, "--neurons", "none.bits"), "cannot read the neuron sets none.bits"),
    (
        ("--to", "gguf", "-c", 3, "--neurons", "x.bits", "-k", 0.2),
        "a file of sets has its own neurons: leave out --keep",
    ),
    (("--to", "numpy", "-c", 3, "--neurons", "x.bits"), "--neurons is for models, and --to numpy makes sets"),
]


@pytest.mark.parametrize(("arguments", "line"), BAD)
def test_bad_input(arguments: tuple[object, ...], line: str, tmp_path: Path) -> None:
    said = run_cli("export", *arguments, "-o", tmp_path / "x", "-q")
    assert (said.code, said.out) == (2, "")
    assert line in said.err
    assert said.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_existing_output_stays(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "mine.txt").write_text("mine")
    before = tree(tmp_path)
    said = run_cli("export", "--to", "numpy", "-o", tmp_path / "x", "-q")
    assert said.code == 2
    assert "exists already: choose another --output" in said.err
    assert tree(tmp_path) == before


def test_another_models_sets(tmp_path: Path) -> None:
    write_sets(tmp_path / "other.bits", Origin("a" * 64, "b" * 64), 0.3, [(3, some((900,) * 6, 2560))], "move it")
    write_sets(tmp_path / "shape.bits", Origin("a" * 64, "b" * 64), 0.3, [(3, some((9,) * 4, 64))], "move it")
    before = tree(tmp_path)
    for name, words in (("other", "holds sets of a model with other weights than 'demo'"),
                        ("shape", "is for 4 layers of 64 neurons, 'demo' has 6 of 2560")):  # fmt: skip
        said = run_cli("export", "--to", "safetensors", "-c", 3, "--neurons", tmp_path / f"{name}.bits",
                       "-o", tmp_path / "x", "-q")  # fmt: skip
        assert said.code == 2
        assert words in said.err
    assert tree(tmp_path) == before


def test_another_model_than_the_artifacts(tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(DEMO_LM, other)
    config = json.loads((other / "config.json").read_text("utf-8"))
    (other / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}), "utf-8")
    said = run_cli("export", "--to", "safetensors", "-c", 3, "-m", other, "-o", tmp_path / "x", "-q")
    assert said.code == 2
    assert "other settings or another tokenizer" in said.err
    assert not (tmp_path / "x").exists()
