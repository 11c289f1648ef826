"""The GGUF file, read back by the package ``gguf``: every number against the model's weights, written out plainly."""

import json
from pathlib import Path
from typing import Any

import families
import numpy as np
import pytest
import torch
from families import FAMILIES, HIDDEN, LAYERS, VOCAB, WIDTH, build
from gguf import GGUFReader, dequantize
from slow_truths import some
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import (
    AutoTokenizer,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from coreinfer import CoreInferError
from coreinfer.decode.families import read_network
from coreinfer.gguf.kinds import Kind
from coreinfer.gguf.layouts import LAYOUTS, unwritable
from coreinfer.gguf.metadata import split_name
from coreinfer.gguf.writer import encoded, write_gguf
from coreinfer.paths import DEMO_LM

WRITTEN = ["Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3"]
GEMMA: dict[str, Any] = {**families._LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8}
HEAD = 8  # dimensions of a head in all of them


def written(name: str, place: Path, kind: Kind = "f32", tokenizer: Any = None) -> tuple[Any, GGUFReader]:
    model = build(name)
    write_gguf(place, model, read_network(model, bundle=False), some(), kind, tokenizer)
    return model, GGUFReader(place)


def facts(reader: GGUFReader) -> dict[str, Any]:
    return {name.split(".", 1)[1]: field.contents() for name, field in reader.fields.items() if "." in name}


def held(reader: GGUFReader) -> dict[str, Tensor]:
    """The tensors by name, as float32 in torch's order of dimensions."""
    return {t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).astype(np.float32)) for t in reader.tensors}


def picked(weight: Tensor, ids: Any, width: int, axis: int) -> Tensor:
    """Rows or columns of these neurons, then zeros."""
    shape = list(weight.shape)
    shape[axis] = width
    out = torch.zeros(shape)
    for at, neuron in enumerate(ids):
        out.select(axis, at).copy_(weight.select(axis, int(neuron)))
    return out


def neighbours(rows: Tensor) -> Tensor:
    """What rope turns together, i and i + HEAD / 2, in rows 2 i and 2 i + 1 of each head."""
    out, half = torch.empty_like(rows), HEAD // 2
    for head in range(0, len(rows), HEAD):
        for i in range(half):
            out[head + 2 * i] = rows[head + i]
            out[head + 2 * i + 1] = rows[head + half + i]
    return out


def attention_rows(model: Any, layer: int) -> dict[str, Tensor]:
    at = model.model.layers[layer].self_attn
    if hasattr(at, "qkv_proj"):
        return dict(zip("qkv", torch.split(at.qkv_proj.weight, [32, 16, 16]), strict=True))
    return {x: getattr(at, f"{x}_proj").weight for x in "qkv"}


def mlp_rows(model: Any, layer: int) -> dict[str, Tensor]:
    mlp = model.model.layers[layer].mlp
    fused = hasattr(mlp, "gate_up_proj")
    gate, up = torch.split(mlp.gate_up_proj.weight, WIDTH) if fused else (mlp.gate_proj.weight, mlp.up_proj.weight)
    return {"ffn_gate": gate, "ffn_up": up, "ffn_down": mlp.down_proj.weight}


@pytest.mark.parametrize("name", WRITTEN)
def test_every_weight_is_there(name: str, tmp_path: Path) -> None:
    model, reader = written(name, tmp_path / "x.gguf")
    found, layout, neurons = held(reader), LAYOUTS[model.config.model_type], some()
    widths = neurons.per_layer if layout.name == "deci" else [max(neurons.per_layer)] * LAYERS
    assert facts(reader)["feed_forward_length"] == (widths if layout.name == "deci" else widths[0])
    one = 1.0 if name.startswith("Gemma") else 0.0
    for layer, (ids, width) in enumerate(zip(neurons.layers, widths, strict=True)):
        for x, rows in attention_rows(model, layer).items():
            wanted = neighbours(rows) if layout.name == "deci" and x != "v" else rows
            assert torch.equal(found[f"blk.{layer}.attn_{x}.weight"], wanted)
        for x, rows in mlp_rows(model, layer).items():
            axis = int(x == "ffn_down")
            assert torch.equal(found[f"blk.{layer}.{x}.weight"], picked(rows, ids, width, axis))
        module = model.model.layers[layer]
        assert torch.equal(found[f"blk.{layer}.attn_output.weight"], module.self_attn.o_proj.weight)
        assert torch.equal(found[f"blk.{layer}.attn_norm.weight"], module.input_layernorm.weight + one)
    assert torch.equal(found["token_embd.weight"], model.get_input_embeddings().weight)
    assert ("output.weight" in found) == (not name.startswith("Gemma"))


def test_biases(tmp_path: Path) -> None:
    model, reader = written("Llama", tmp_path / "x.gguf")
    found, layer = held(reader), model.model.layers[1]
    assert torch.equal(found["blk.1.attn_q.bias"], neighbours(layer.self_attn.q_proj.bias))
    assert torch.equal(found["blk.1.attn_v.bias"], layer.self_attn.v_proj.bias)
    assert torch.equal(found["blk.1.ffn_up.bias"], layer.mlp.up_proj.bias[torch.from_numpy(some().layers[1]).long()])
    assert torch.equal(found["blk.1.ffn_down.bias"], layer.mlp.down_proj.bias)


def test_the_models_numbers(tmp_path: Path) -> None:
    _, reader = written("Gemma3", tmp_path / "x.gguf")
    said = facts(reader)
    assert said["block_count"] == LAYERS
    assert said["embedding_length"] == HIDDEN
    assert (said["attention.head_count"], said["attention.head_count_kv"], said["attention.key_length"]) == (4, 2, 8)
    assert (said["attention.sliding_window"], said["attention.sliding_window_pattern"]) == (16, [True, True])
    assert said["vocab_size"] == VOCAB
    assert said["rope.freq_base"] == pytest.approx(1e6)
    assert said["rope.freq_base_swa"] == pytest.approx(1e4)
    assert facts(GGUFReader(tmp_path / "x.gguf"))["ggml.model"] == "none"


def test_positions_that_llama_3_stretches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ropes = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    }  # fmt: skip
    monkeypatch.setitem(FAMILIES, "Llama", LlamaConfig(**families._LLAMA, rope_parameters=ropes))
    model, reader = written("Llama", tmp_path / "x.gguf")
    plain = 5e5 ** -(torch.arange(4) / 4)
    assert torch.allclose(plain / held(reader)["rope_freqs.weight"], model.model.rotary_emb.inv_freq)
    assert "rope_freqs.weight" not in held(written("Mistral", tmp_path / "y.gguf")[1])


@pytest.mark.parametrize(("kind", "close"), [("bf16", 2.0**-8), ("q8_0", 1 / 254 + 2.0**-11)])
def test_rounded_weights(kind: Kind, close: float, tmp_path: Path) -> None:
    """bfloat16 has eight bits; q8_0 rounds to half of a 127th of a block's largest number, and that to float16."""
    exact = held(written("Llama", tmp_path / "f32.gguf")[1])
    _, reader = written("Llama", tmp_path / "x.gguf", kind)
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    for name, found in held(reader).items():
        wanted = torch.zeros_like(found)  # q8_0 fills layers up to a multiple of 32
        wanted[tuple(slice(0, size) for size in exact[name].shape)] = exact[name]
        assert kind == "q8_0" or wanted.shape == exact[name].shape
        assert types[name] == ("F32" if wanted.ndim == 1 else kind.upper())
        largest = wanted.abs().max() if kind == "q8_0" else wanted.abs()
        assert ((found - wanted).abs() <= (close if wanted.ndim == 2 else 0) * largest).all()
        assert (found[wanted == 0] == 0).all()


def test_four_bits(tmp_path: Path) -> None:
    """q4_0 has a scale of an eighth of a block's largest number; embedding and head have eight bits."""
    exact = held(written("Llama", tmp_path / "f32.gguf")[1])
    _, reader = written("Llama", tmp_path / "x.gguf", "q4_0")
    types = {t.name: t.tensor_type.name for t in reader.tensors}
    assert types["token_embd.weight"] == types["output.weight"] == "Q8_0"
    assert types["blk.1.ffn_up.weight"] == types["blk.1.attn_q.weight"] == types["blk.0.ffn_down.weight"] == "Q4_0"
    assert facts(reader)["feed_forward_length"] == [32, 32]
    found, wanted = held(reader)["blk.1.ffn_up.weight"][:13], exact["blk.1.ffn_up.weight"]
    assert ((found - wanted).abs() <= wanted.abs().amax(1, keepdim=True) * (1 / 8 + 2**-10)).all()
    assert (found - wanted).abs().max() > 0


def test_bfloat16_is_the_nearest() -> None:
    rows = torch.randn(5, 7)
    assert torch.equal(torch.from_numpy(encoded(rows, "bf16")).view(torch.bfloat16), rows.bfloat16())


def test_a_byte_level_tokenizer(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    _, reader = written("Llama", tmp_path / "x.gguf", tokenizer=tokenizer)
    said = facts(reader)
    assert (said["ggml.model"], said["ggml.pre"]) == ("gpt2", "gpt-2")
    assert said["ggml.tokens"] == tokenizer.convert_ids_to_tokens(list(range(VOCAB)))  # the embedding's rows, no more
    assert said["ggml.token_type"][:3] == [3, 3, 1]
    assert len(said["ggml.merges"]) == 7934
    assert (said["ggml.bos_token_id"], said["ggml.add_bos_token"], said["ggml.add_eos_token"]) == (0, True, False)


def test_rows_that_no_token_has(tmp_path: Path) -> None:
    words = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    words.pre_tokenizer = pre_tokenizers.ByteLevel()
    small = PreTrainedTokenizerFast(tokenizer_object=words)  # type: ignore[no-untyped-call]
    said = facts(written("Llama", tmp_path / "x.gguf", tokenizer=small)[1])
    assert said["ggml.tokens"][:4] == ["a", "b", "ab", "[PAD3]"]
    assert said["ggml.token_type"] == [1, 1, 1] + [5] * (VOCAB - 3)
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    other = PreTrainedTokenizerFast(tokenizer_object=words)  # type: ignore[no-untyped-call]
    said = facts(written("Llama", tmp_path / "y.gguf", tokenizer=other)[1])
    assert said["ggml.model"] == "none"
    assert "ggml.tokens" not in said


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.mark.parametrize(
    ("expression", "name"),
    [(LLAMA3, "llama-bpe"), (LLAMA3.replace("{1,3}", ""), "qwen2"), (r"\p{L}+|\s+", "default")],
)
def test_names_of_ways_to_split_text(expression: str, name: str) -> None:
    split, plain = pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    assert split_name(json.loads(words.to_str())["pre_tokenizer"]) == name


def test_what_llama_cpp_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name for name in FAMILIES if unwritable(build(name)) is None] == WRITTEN
    assert unwritable(build("OPT")) == "the architecture 'opt'"
    part = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    odd: list[tuple[str, PreTrainedConfig, str]] = [
        ("Llama", LlamaConfig(**families._LLAMA, hidden_act="relu"), "the activation 'relu': its graph of llama has"),
        ("Qwen3", Qwen3Config(**families._LLAMA, attention_bias=True), "the bias layers.0.self_attn.o_proj.bias"),
        ("Phi3", Phi3Config(**families._LLAMA, rope_parameters=part), "positions that turn a part of each head"),
        ("Gemma2", Gemma2Config(**GEMMA, layer_types=["full_attention"] * 2), "a Gemma 2 without sliding windows"),
        ("Gemma2", Gemma2Config(**GEMMA, final_logit_softcapping=None), "logits or attention scores without a cap"),
        ("Gemma3", Gemma3TextConfig(**GEMMA, hidden_activation="gelu"), "the activation 'gelu': its graph of gemma3"),
    ]
    for name, config, why in odd:
        monkeypatch.setitem(FAMILIES, name, config)
        assert (unwritable(build(name)) or "").startswith(why)
    monkeypatch.undo()
    scaled: Any = build("Qwen2")
    scaled.model.layers[0].self_attn.scaling = 0.5
    assert unwritable(scaled) == "attention scores scaled by 0.5"
    untied: Any = build("Gemma2")
    untied.lm_head.weight = torch.nn.Parameter(untied.lm_head.weight.clone())
    assert unwritable(untied) == "a head of its own"


def test_a_disk_that_refuses(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CoreInferError, match=r"cannot write .*x.gguf: .* is a file, no folder; choose another place"):
        written("Llama", tmp_path / "file" / "x.gguf")
    with pytest.raises(CoreInferError, match="the kind of GGUF weights is 'q4': choose one of f32, bf16, q8_0"):
        written("Llama", tmp_path / "x.gguf", "q4")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
