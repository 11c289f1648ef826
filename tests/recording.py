"""A family's tiny model, or another, and the shares that it records of made-up texts."""

import numpy as np
import torch
from families import CONTEXT, FAMILIES, VOCAB
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from coreinfer.settings import StatisticSettings
from pipeline.record import Recorder


def tiny(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    made: PreTrainedModel = AutoModelForCausalLM.from_config(FAMILIES[name]).eval()  # type: ignore[no-untyped-call]
    return made


def recorder(model: PreTrainedModel, most: int = CONTEXT) -> Recorder:
    return Recorder(model, None, StatisticSettings(), most)  # type: ignore[arg-type]  # no texts are tokenized


def shares(by: Recorder, texts: int, tokens: int, padded: bool = True) -> NDArray[np.float64]:
    """(B, L, F) of texts of so many tokens; of the first, where they are padded, half as many."""
    ids = torch.randint(2, VOCAB, (texts, tokens), generator=torch.Generator().manual_seed(tokens))
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 1 - padded
    ids, mask = (x.to(by.model.device) for x in (ids * mask, mask))
    return by.shares_of(by.capture(), ids, mask)
