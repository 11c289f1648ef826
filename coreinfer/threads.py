"""How many of torch's threads work on what a CPU does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from coreinfer.quantised.linear import QuantisedLinear

LITTLE = 4e8  # multiplications that one thread has done before others, who slept, are of much help


class _Own(threading.local):
    """Of a thread: whether its number of threads is known to be its own, and whether it is lowered at the moment."""

    known = lowered = False


class _Process:
    """How many have lowered theirs at the moment, and the last number that was not."""

    lowered, latest, lock = 0, 1, threading.Lock()


_own = _Own()


@contextmanager
def enough_for(multiplications: float) -> Iterator[None]:
    """One thread for a short prompt of a small model, all for more.

    Threads that sleep while they wait (``OMP_WAIT_POLICY=passive``) are woken for each product. Beside a busy program
    the woken one may have to wait for a processor: a prompt of ten words took 55 ms with two threads, 19 with one.
    """
    threads, lowered = _threads(), _own.lowered
    _own.lowered = multiplications <= LITTLE
    _count(_own.lowered)
    torch.set_num_threads(1 if _own.lowered else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _count(-int(_own.lowered))
        _own.lowered = lowered


@contextmanager
def running_on(threads: int) -> Iterator[None]:
    """So many threads, whatever is done, and as many as before after it."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _count(change: int) -> None:
    with _Process.lock:
        _Process.lowered += change


def _threads() -> int:
    """This thread's. torch's number is the process's too, until a thread first asks: one that did while another's was
    lowered would have one for ever.
    """
    now = torch.get_num_threads()
    if now == 1 and not _own.known and _Process.lowered:
        now = _Process.latest
    elif not _own.lowered:
        _Process.latest = now
    _own.known = True
    return now


def multiplications_of(model: nn.Module) -> int:
    """For each token: by all linear modules, also those whose weights are elsewhere or quantised. A head, which only
    the last token needs, is none of ``model.base_model``'s.
    """
    modules = list(model.modules())
    plain = sum(m.in_features * m.out_features for m in modules if isinstance(m, nn.Linear))
    return plain + sum(m.packed.numel() for m in modules if isinstance(m, QuantisedLinear))
