"""The next token of a CPU's step, from its logits."""

import torch
from torch import Tensor

from coreinfer.decode.state import State


def drawn(logits: Tensor, temperature: float, seed: int, at: int) -> int:
    """The likeliest token of float32 logits (V,), or above temperature 0 one drawn by its probability.

    Each (seed, position) has noise of its own.
    """
    if not temperature:
        return int(logits.argmax())
    noise = torch.Generator().manual_seed(seed * 1_000_003 + at)
    return int(torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=noise))


def pick(state: State) -> None:
    """The token drawn becomes the next step's input."""
    at = int(state.position)
    token = drawn(state.logits, float(state.temperature), int(state.seed), at)
    state.token.fill_(token), state.position.fill_(at + 1)
    state.history[at + 1] = token
