"""How many of torch's threads work on what a CPU does."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from coreinfer.quantised.linear import QuantisedLinear

LITTLE = 4e8  # multiplications that one thread has done before others, who slept, are of much help


@contextmanager
def enough_for(multiplications: float) -> Iterator[None]:
    """One thread for a short prompt of a small model, all for more.

    Threads that sleep while they wait (``OMP_WAIT_POLICY=passive``) are woken for each product. Beside a busy program
    the woken one may have to wait for a processor: a prompt of ten words took 55 ms with two threads, 19 with one.
    """
    threads = torch.get_num_threads()
    if threads == 1 or multiplications > LITTLE:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def multiplications_of(model: nn.Module) -> int:
    """For each token: by all linear modules, also those whose weights are elsewhere or quantised."""
    modules = list(model.modules())
    plain = sum(m.in_features * m.out_features for m in modules if isinstance(m, nn.Linear))
    return plain + sum(m.packed.numel() for m in modules if isinstance(m, QuantisedLinear))
