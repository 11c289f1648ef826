"""A GPU's tokens as they are made: steps are launched before the tokens of those before them are read, so that the
device is never waited for longer than it takes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

AHEAD = 4  # steps that the device may be ahead of the reader: what they make beyond an end is thrown away


def tokens_ahead(run: Callable[[], object], token: Tensor, count: int) -> Iterator[int]:
    """What each of ``count`` runs leaves in ``token`` (1,), on a GPU. The caller may stop early."""
    made = torch.empty(count, dtype=torch.int32, pin_memory=True)
    done: list[Any] = [torch.cuda.Event() for _ in range(count)]  # type: ignore[no-untyped-call]
    for number in range(count + AHEAD):
        if number < count:
            run()
            made[number : number + 1].copy_(token, non_blocking=True)
            done[number].record()
        if number >= AHEAD:
            done[number - AHEAD].synchronize()
            yield int(made[number - AHEAD])
