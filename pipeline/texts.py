"""Texts to evaluate on, from anything that build-clusters reads."""

from transformers import PreTrainedTokenizerBase

from coreinfer.errors import CoreInferError
from pipeline.sources import Counts, SourceSettings, read_passages


def long_texts(
    dataset: str, text_column: str | None, limit: int | None, tokens: int, tokenizer: PreTrainedTokenizerBase
) -> list[str]:
    """The first ``limit`` texts of at least ``tokens`` tokens, uncut.

    Raises:
        CoreInferError: an unusable dataset, or no text is long enough.
    """
    longest, out = 0, list[str]()
    source = SourceSettings(dataset, text_column=text_column, max_tokens=1 << 30)

    def lengths(texts: list[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(texts, verbose=False)["input_ids"]]

    for passage in read_passages(source, lengths, Counts()):
        size = lengths([passage.text])[0]
        longest = max(longest, size)
        if size >= tokens:
            out.append(passage.text)
        if limit is not None and len(out) == limit:
            break
    if not out:
        raise CoreInferError(
            f"no text of {dataset} has the {tokens} tokens that prompt and continuation need (the longest has "
            f"{longest}): give longer texts, or lower --prompt-tokens and --continuation-tokens"
        )
    return out
