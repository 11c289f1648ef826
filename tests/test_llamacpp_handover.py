"""A sequence's state as llama.cpp reads it, taken apart again field by field."""

import struct
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from coreinfer import CoreInferError
from coreinfer.llamacpp.handover import Shape, sequence_state


class Reading:
    """A plain reader of the format."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, form: str) -> Any:
        (value,) = struct.unpack_from("<" + form, self.raw, self.at)
        self.at += struct.calcsize("<" + form)
        return value

    def rows(self, cells: int, dtype: torch.dtype, across: bool) -> Any:
        """(cells, numbers of a row), as float32; ``across``: stored a row a dimension, under another header."""
        kind: type[np.floating[Any]] = np.float32 if dtype is torch.float32 else np.float16
        item = np.dtype(kind).itemsize
        assert self.take("i") == (0 if dtype is torch.float32 else 1)
        if across:
            assert self.take("I") == item
        size = self.take("I") if across else self.take("Q") // item
        out = np.frombuffer(self.raw, kind, cells * size, self.at)
        self.at += out.nbytes
        return (out.reshape(size, cells).T if across else out.reshape(cells, size)).astype(np.float32)

    def cache(self, layers: int, dtype: torch.dtype) -> tuple[list[int], list[Any]]:
        """Positions, and all keys' and then all values' rows."""
        assert self.take("I") == 1
        cells = self.take("I")
        positions = list[int]()
        for _ in range(cells):
            positions.append(self.take("i"))
            assert (self.take("I"), self.take("i")) == (1, 0)
        assert (self.take("I"), self.take("I")) == (1, layers)
        return positions, [self.rows(cells, dtype, x >= layers) for x in range(2 * layers)]


def caches(layers: int, heads: int, kept: list[int], dim: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    return [
        (torch.randn(heads, kept[i], dim, generator=rng), torch.randn(heads, kept[i], dim, generator=rng))
        for i in range(layers)
    ]


@given(
    layers=st.integers(1, 3), heads=st.integers(1, 3), known=st.integers(1, 6), half=st.integers(1, 3),
    turned=st.booleans(), exact=st.booleans(),
)  # fmt: skip
def test_every_number_in_its_place(layers: int, heads: int, known: int, half: int, turned: bool, exact: bool) -> None:
    dtype, dim = torch.float32 if exact else torch.float16, 2 * half
    some = caches(layers, heads, [known] * layers, dim)
    reading = Reading(sequence_state(some, known, Shape((None,) * layers, dim, turned, dtype)))
    positions, rows = reading.cache(layers, dtype)
    assert reading.at == len(reading.raw)
    assert positions == list(range(known))
    for layer, (keys, values) in enumerate(some):
        for position in range(known):
            for head in range(heads):
                for i in range(dim):
                    place = 2 * (i % half) + i // half if turned else i
                    key = rows[layer][position, head * dim + place]
                    assert key == keys[head, position, i].to(dtype).float()
                    value = rows[layers + layer][position, head * dim + i]
                    assert value == values[head, position, i].to(dtype).float()


def test_sliding_windows_have_a_cache_of_their_own() -> None:
    """Layers 0 and 2 keep the last three of seven positions, which is what the next token sees in a window of four."""
    some = caches(3, 2, [3, 7, 3], 4)
    reading = Reading(sequence_state(some, 7, Shape((4, None, 4), 4, False, torch.float32)))
    positions, rows = reading.cache(1, torch.float32)
    assert positions == list(range(7))
    assert np.array_equal(rows[0], some[1][0].transpose(0, 1).reshape(7, 8).numpy())
    positions, rows = reading.cache(2, torch.float32)
    assert positions == [4, 5, 6]
    assert np.array_equal(rows[3], some[2][1].transpose(0, 1).reshape(3, 8).numpy())
    assert reading.at == len(reading.raw)


def test_a_window_that_holds_more_than_it_shows() -> None:
    """A short prompt's cache may be whole: only what the window shows is handed over."""
    some = caches(1, 1, [7], 2)
    reading = Reading(sequence_state(some, 7, Shape((4,), 2, False, torch.float32)))
    assert reading.cache(0, torch.float32) == (list(range(7)), [])
    positions, rows = reading.cache(1, torch.float32)
    assert positions == [4, 5, 6]
    assert np.array_equal(rows[0], some[0][0][0, 4:].numpy())


def test_numbers_too_large_for_float16() -> None:
    keys = torch.full((1, 2, 4), 7e4)
    for dtype in (torch.float32, torch.bfloat16):
        some = [(keys.to(dtype), keys.to(dtype))]
        assert sequence_state(some, 2, Shape((None,), 4, False, torch.float32))
        with pytest.raises(CoreInferError, match=r"too large for float16, in which llama.cpp keeps them: give --dtype"):
            sequence_state(some, 2, Shape((None,), 4, False, torch.float16))
