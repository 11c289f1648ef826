"""A team's products beside those of one thread, bit for bit, whoever helps and whenever."""

import time
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some

from coreinfer.decode import compiled, compiled_heads, compiled_int, compiled_int_shared, compiled_shared
from coreinfer.decode.team import COUNT, FEW, JOB, SIZE, Team, offer, taken, team
from coreinfer.quantised.packed import quantised


def many() -> Team:
    """More threads than most machines have processors, so that some are pushed away amid their parts."""
    return team(6, compiled_shared.helps)


def weights(m: int, n: int, seed: int, narrow: bool) -> Any:
    made = torch.randn(m, n, generator=torch.Generator().manual_seed(seed))
    return made.bfloat16().view(torch.uint16).numpy() if narrow else made.numpy()


def product_twice(helped: Team, m: int, n: int, rows: int, seed: int, narrow: bool) -> None:
    rng = np.random.default_rng(seed)
    w, x, bias = weights(m, n, seed, narrow), rng.random((rows, n), np.float32), rng.random(m, np.float32)
    alone, shared = np.empty((2, rows, m), np.float32)
    compiled.product(w, x, bias, alone)
    helped.share(compiled_shared.shared_product, compiled.product, w, x, bias, shared)
    assert np.array_equal(alone, shared)


@settings(deadline=None, max_examples=25)
@given(some.integers(1, 700), some.integers(1, 400), some.integers(1, 9), some.booleans())
def test_products(m: int, n: int, rows: int, narrow: bool) -> None:
    for seed in range(3):  # jobs of other sizes follow at once
        product_twice(many(), m + 7 * seed, n, rows, seed, narrow)


@settings(deadline=None, max_examples=12)
@given(some.integers(1, 300), some.integers(1, 3), some.sampled_from([8, 4]), some.booleans(), some.integers(1, 5))
def test_quantised_products(m: int, groups: int, bits: int, across: bool, rows: int) -> None:
    held = quantised(torch.randn(m, 64 * groups), bits)
    w, s = (x.view(torch.uint16).numpy() if x.element_size() == 2 else x.numpy() for x in (held.data, held.scales))
    width = 64 * groups
    x = np.random.default_rng(0).random((rows, m if across else width), np.float32)
    bias = np.zeros(width if across else m, np.float32)
    alone, shared = np.empty((2, rows, len(bias)), np.float32)
    compiled_int.product(w, s, x, bias, alone, across)
    run = team(4, compiled_int_shared.helps).share
    run(compiled_int_shared.shared_product, compiled_int.product, w, s, x, bias, shared, across)
    assert np.array_equal(alone, shared)


@pytest.mark.parametrize("narrow", [True, False])
@pytest.mark.parametrize("size", [16, 80, 128])
def test_attention(size: int, narrow: bool) -> None:
    rng, rows, heads, kv, context = np.random.default_rng(1), 3, 6, 2, 50
    qkv = rng.random((rows, heads + 2 * kv, size), np.float32)
    keys, values = (
        weights(rows * context * kv, size, seed, narrow).reshape(rows, context, kv, size) for seed in (1, 2)
    )
    slots, positions = np.array([2, 0, 1], np.int32), np.array([49, 3, 20], np.int32)
    alone, shared = np.empty((2, rows, heads, size), np.float32)
    for out, run in ((alone, compiled_heads.attend), (shared, None)):
        given_ = heads, qkv, keys, values, slots, positions, 30, 0.25, 5.0, np.empty((18, 50), np.float32), out
        if run is None:
            many().share(compiled_shared.shared_attend, compiled_heads.attend, *given_)
        else:
            run(*given_)
    assert np.array_equal(alone, shared)


def test_several_threads_lead() -> None:
    """One of them does; the others go alone meanwhile."""
    faults = list[BaseException]()

    def lead(seed: int) -> None:
        try:
            for n in range(60):
                product_twice(many(), 300 + n, 64, 2, seed + n, True)
        except BaseException as error:
            faults.append(error)

    threads = [Thread(target=lead, args=(1000 * n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults


def test_helpers_sleep_and_wake() -> None:
    helped = Team(3, compiled_shared.helps)
    product_twice(helped, 500, 100, 1, 0, True)
    deadline = time.monotonic() + 20
    while any(wake.is_set() for wake in helped._asleep) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(wake.is_set() for wake in helped._asleep)
    before = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - before < 0.1  # nobody looks for work
    for seed in range(50):
        product_twice(helped, 500, 100, 1, seed, True)


@given(some.integers(1, 1 << 20), some.integers(1, 1 << 17))
def test_how_loops_are_cut(rows: int, size: int) -> None:
    """Whole tiles, and never more parts than a word counts, nor than are worth it."""
    each = compiled_shared.block(rows, size)
    assert each % 4 == each % compiled_shared.LINE == 0
    assert -(-rows // each) <= compiled_shared.MOST < FEW <= COUNT // 2 + 1
    assert each <= -(-rows // compiled_shared.FEWEST) + compiled_shared.LINE


def test_each_part_is_taken_once() -> None:
    board = np.zeros(SIZE, np.int64)
    assert taken(board) == -1
    for parts in (1, 5, 256, FEW):
        offer(board, parts)
        assert [taken(board) for _ in range(parts + 3)] == [*range(parts), -1, -1, -1]
    assert not board[JOB:].any()
