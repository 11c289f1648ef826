"""A random Llama of any width, and a random BERT to embed with, in folders: what builds fast from real words."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, LlamaConfig

from coreinfer.hub import DEFAULT, embedder_place
from coreinfer.paths import DEMO_LM


def save_llama(place: Path, layers: int, width: int, context: int) -> Path:
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_LM)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=width, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=context, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(place)  # type: ignore[no-untyped-call]
    tokenizer.save_pretrained(place)
    return place


def save_bert(place: Path) -> Path:
    torch.manual_seed(0)
    tiny = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=30522
    )
    BertModel(tiny).save_pretrained(place)
    AutoTokenizer.from_pretrained(embedder_place(DEFAULT)).save_pretrained(place)
    return place
