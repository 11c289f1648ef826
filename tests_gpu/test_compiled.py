"""On a GPU: recording with compiled layers, of a model large enough that it pays."""

from functools import partial

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from recording import recorder, shares

from coreinfer.bench.shapes import random_model
from pipeline.compiled import APART
from pipeline.rounds import compared, in_turn

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

SIZES = [(64, 160), (1, 512), (33, 48), (2, 16), (7, 1024), (64, 512)]


def test_compiled_layers_are_faster_and_their_bits_depend_on_nothing_else() -> None:
    """Neither on the sizes that came before nor on what one process made of it; close to what is not compiled."""
    model = random_model("llama-3.2-1b", torch.bfloat16, "cuda")
    plain = recorder(model, 1024)
    wanted = [shares(plain, *size) for size in SIZES]
    before = in_turn({"plain": partial(shares, plain, 32, 256)}, "cuda", 7)
    found = list[list[NDArray[np.float64]]]()
    for order in (1, -1):
        ours = plain.compiled()
        found.append([shares(ours, *size) for size in SIZES[::order]][::order])
    for one, other, truth in zip(*found, wanted, strict=True):
        assert np.array_equal(one, other)
        assert np.abs(one - truth).sum(-1).max() < APART
    took = in_turn({"compiled": partial(shares, ours, 32, 256)}, "cuda", 7) | before
    made = compared(took, "compiled", "plain", 1)
    print(made)
    assert made.ratio < 0.9
