"""Which embedders are packed: those that give what sentence-transformers gives, and no others."""

from pathlib import Path
from typing import Any

import pytest
import torch
from families import one_thread as one_thread
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Normalize, Pooling, Transformer
from small_models import save_bert
from transformers import AutoTokenizer, XLMRobertaConfig, XLMRobertaModel

from coreinfer.encoding import PackedEncoder, packed_encoder


def save_xlm(place: Path) -> Path:
    torch.manual_seed(0)
    tiny = XLMRobertaConfig(
        hidden_size=256, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=30522,
        max_position_embeddings=130, pad_token_id=0,
    )  # fmt: skip
    XLMRobertaModel(tiny).save_pretrained(place)
    AutoTokenizer.from_pretrained(save_bert(place.with_name("words"))).save_pretrained(place)
    return place


def embedder(place: Path, *, dtype: torch.dtype = torch.float32, mode: str = "mean", unit: bool = False) -> Any:
    inner = Transformer(str(place), max_seq_length=128, model_args={"dtype": dtype})
    modules: list[Any] = [inner, Pooling(inner.get_embedding_dimension(), pooling_mode=mode)]
    return SentenceTransformer(modules=[*modules, Normalize()] if unit else modules, device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("mode", "unit"), [("mean", False), ("mean", True), ("cls", False), ("max", False)])
def test_what_sentence_transformers_gives(tmp_path: Path, dtype: torch.dtype, mode: str, unit: bool) -> None:
    made = packed_encoder(embedder(save_bert(tmp_path), dtype=dtype, mode=mode, unit=unit), 128)
    assert (made is None) == (mode == "max")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_places_that_begin_elsewhere_are_not_packed(tmp_path: Path, dtype: torch.dtype) -> None:
    """A random model's vectors are long and alike: neither may hide that they are other ones."""
    assert packed_encoder(embedder(save_xlm(tmp_path / "xlm"), dtype=dtype), 128) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_trial_finds_out_other_vectors(
    tmp_path: Path, dtype: torch.dtype, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long they are."""
    model, encode = embedder(save_bert(tmp_path), dtype=dtype), PackedEncoder.encode
    assert packed_encoder(model, 128) is not None

    def turned(self: PackedEncoder, texts: list[str]) -> Any:
        found = encode(self, texts)
        return found + 0.1 * abs(found).max() * (found > 0)

    with torch.no_grad():
        model[0].auto_model.encoder.layer[-1].output.LayerNorm.weight.mul_(scale)
    monkeypatch.setattr(PackedEncoder, "encode", turned)
    assert packed_encoder(model, 128) is None
