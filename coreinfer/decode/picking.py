"""The next token of a CPU's step, from its logits."""

import torch

from coreinfer.decode.state import State


def pick(state: State) -> None:
    """The likeliest token, or above temperature 0 one drawn by its probability, becomes the next step's input."""
    at, heat = int(state.position), float(state.temperature)
    if heat > 0:
        noise = torch.Generator().manual_seed(int(state.seed) + at)
        drawn = int(torch.multinomial(torch.softmax(state.logits / heat, 0), 1, generator=noise))
    else:
        drawn = int(state.logits.argmax())
    state.token.fill_(drawn), state.position.fill_(at + 1)
    state.history[at + 1] = drawn
