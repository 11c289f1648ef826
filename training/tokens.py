"""A tokenizer of one's own: a byte-level BPE, trained on any corpus that build-clusters reads."""

from typing import Any

from transformers import PreTrainedTokenizerFast

from pipeline.sources import Counts, SourceSettings, read_passages

END, PAD = "<|endoftext|>", "<|pad|>"


def read_texts(dataset: str, text_column: str | None = None) -> list[str]:
    """Every text of anything that build-clusters reads, whole."""
    source = SourceSettings(dataset, text_column=text_column, max_tokens=1 << 30, min_chars=1)
    return [passage.text for passage in read_passages(source, lambda texts: [0] * len(texts), Counts())]


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE that begins each text with ``END``."""
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
