"""A corpus becomes one long row of token ids; a tokenizer is trained on it where none is given."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.sources import Counts, SourceSettings, read_passages

END, PAD = "<|endoftext|>", "<|pad|>"


def read_texts(dataset: str, text_column: str | None = None) -> list[str]:
    """Every text of anything that build-clusters reads, whole."""
    source = SourceSettings(dataset, text_column=text_column, max_tokens=1 << 30, min_chars=1)
    return [passage.text for passage in read_passages(source, lambda texts: [0] * len(texts), Counts())]


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that ends each text with ``END``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    made: Any = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[END, PAD], initial_alphabet=alphabet)
    )
    made.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, bos_token=END, eos_token=END, pad_token=PAD
    )


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(name)


def token_row(texts: list[str], tokenizer: PreTrainedTokenizerBase, seed: int | None = None) -> Tensor:
    """Token ids of all texts, one after another, int32 (n,); shuffled by ``seed`` unless it is None."""
    order = range(len(texts)) if seed is None else np.random.default_rng(seed).permutation(len(texts)).tolist()
    return torch.from_numpy(np.concatenate(list(_pieces([texts[i] for i in order], tokenizer))))


def _pieces(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[np.ndarray[Any, np.dtype[np.int32]]]:
    for at in range(0, len(texts), 1024):
        for ids in tokenizer(texts[at : at + 1024], verbose=False)["input_ids"]:
            yield np.asarray(ids, np.int32)
