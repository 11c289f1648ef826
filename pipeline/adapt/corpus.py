"""A dataset becomes texts that are trained on and texts that are held out; both become rows of tokens.

A text is a record, or a passage of one longer than a window, as build-clusters would cut it. Records are shuffled,
their passages stay together, and a record goes to one side with all of them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from itertools import groupby

import numpy as np
from transformers import PreTrainedTokenizerBase

from coreinfer.errors import CoreInferError
from pipeline.adapt.packing import Ids, Row, pack
from pipeline.sources import Counts, SourceSettings, read_passages

PART = 50  # one record in so many is held out
PIECE = 1024  # texts tokenized together

Record = list[str]


@dataclass(frozen=True)
class Corpus:
    """Texts trained on and their tokens, the same of the held-out ones, and what was left out.

    ``duplicates``: records that are letter for letter a held-out one, on neither side.
    """

    texts: list[str]
    row: Row
    held_texts: list[str]
    held: Row
    counts: Counts
    duplicates: int


def read_corpus(
    source: SourceSettings, held_out: str | None, tokenizer: PreTrainedTokenizerBase, context: int, seed: int
) -> Corpus:
    """Read, split, shuffle and tokenize.

    Raises:
        CoreInferError: an unusable dataset, or less text than one window.
    """
    counts = Counts()
    records = list(read_records(source, tokenizer, context, counts))
    if held_out is None:
        held = [record for record in records if _held(record)] or [min(records, key=_hash)]
    else:
        held = list(read_records(SourceSettings(held_out), tokenizer, context, Counts()))
    barred = {_hash(record) for record in held}
    kept = [record for record in records if _hash(record) not in barred]
    order = np.random.default_rng(seed).permutation(len(kept))
    texts, held_texts = [text for i in order for text in kept[i]], [text for record in held for text in record]
    row, held_row = (pack(encode(some, tokenizer)) for some in (texts, held_texts))
    if len(row.ids) < context + 1:
        raise CoreInferError(
            f"{source.dataset!r} has {len(row.ids)} tokens to train on, a window takes {context + 1}: give more text, "
            "or a smaller --context"
        )
    return Corpus(texts, row, held_texts, held_row, counts, len(records) - len(kept) - (0 if held_out else len(held)))


def read_records(
    source: SourceSettings, tokenizer: PreTrainedTokenizerBase, context: int, counts: Counts
) -> Iterator[Record]:
    """The texts of each record; one of more than ``context`` tokens is cut."""
    room = replace(source, max_tokens=context, min_chars=1)
    passages = read_passages(room, counter(tokenizer), counts)
    for _, record in groupby(passages, key=lambda passage: passage.source):
        yield [passage.text for passage in record]


def encode(texts: list[str], tokenizer: PreTrainedTokenizerBase) -> Iterator[Ids]:
    """Each text's tokens; the first is the tokenizer's beginning-of-text where it has one."""
    first = tokenizer.bos_token_id
    for at in range(0, len(texts), PIECE):
        for ids in tokenizer(texts[at : at + PIECE], verbose=False)["input_ids"]:
            missing = isinstance(first, int) and ids[:1] != [first]
            yield np.asarray([first, *ids] if missing else ids, np.int32)


def counter(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[str]], list[int]]:
    """Texts -> how many tokens ``encode`` makes of each."""
    return lambda texts: [len(ids) for ids in encode(texts, tokenizer)]


def _hash(record: Record) -> bytes:
    return blake2b("\n".join(record).encode(), digest_size=16).digest()


def _held(record: Record) -> bool:
    """By the record's text alone: the same text is on the same side, whatever else the dataset holds."""
    return int.from_bytes(_hash(record)[:8]) % PART == 0
