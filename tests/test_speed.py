"""Tokens a second and shares of the machine's products: the work of a tiny model, counted by hand."""

import numpy as np
import pytest
from families import HIDDEN, LAYERS, WIDTH
from families import one_thread as one_thread
from test_record import recorder

from coreinfer.bench.limits import multiplications
from pipeline.speed import recording, sentence, speed


def test_the_work_of_recording_is_weights_and_attention() -> None:
    """A Llama of 4 heads of 8, keys and values of 2; the last down projection is left out."""
    texts = ["w4 w5 w6", "w4"]  # 4 tokens and 2, with the beginning-of-text
    work = recording(recorder("Llama"), texts)
    layer = 2 * HIDDEN * HIDDEN + 2 * HIDDEN * (HIDDEN // 2) + 3 * HIDDEN * WIDTH
    weights = LAYERS * layer - HIDDEN * WIDTH
    pairs = (4**2 + 2**2) / 2 / 2  # the mean of squares, of which causal attention needs half
    assert work.tokens == 3
    assert work.flops == pytest.approx(2 * weights * 3 + 4 * LAYERS * HIDDEN * pairs)
    assert work.shape == (HIDDEN, WIDTH)


def test_a_speed_adds_up() -> None:
    work = recording(recorder("Llama"), ["w4 w5 w6"])
    made = speed(work, 10, 2.0)
    assert (made.tokens, made.tokens_per_second) == (40, 20.0)
    assert made.flops == pytest.approx(work.flops * 5)
    assert made.share == pytest.approx(made.flops / made.limit)
    assert made.limit > 0
    assert sentence({**made.row(), "share": 0.25, "limit": 2e12}) == (
        "20 tokens/s, 25% of what this machine multiplies (2 TFLOP/s in float32)"
    )


def test_products_are_counted_twice_a_weight_and_row() -> None:
    import torch

    assert np.isfinite(multiplications("cpu", torch.float32, 4, 8, 8))
