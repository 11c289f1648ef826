"""The next tokens of a CPU's step, from its logits."""

import numpy as np
import torch
from torch import Tensor

from coreinfer.decode.state import Feed, State

ENOUGH = 1024  # tokens among which a nucleus is looked for first


def nucleus(shares: Tensor, top_p: float) -> Tensor:
    """Probabilities (V,) with zero for all but the likeliest that make ``top_p`` together (Holtzman et al. 2020); of
    equally likely ones at the border, all stay.
    """
    likeliest = shares.topk(min(ENOUGH, len(shares))).values
    if likeliest.sum() < top_p:
        likeliest = shares.sort(descending=True).values
    last = int((likeliest.cumsum(0) < top_p).sum())
    return shares * (shares >= likeliest[min(last, len(likeliest) - 1)])


def drawn(logits: Tensor, temperature: float, seed: int, at: int, top_p: float = 1.0) -> int:
    """The likeliest token of float32 logits (V,), or above temperature 0 one drawn by its probability, among those of
    the nucleus ``top_p``.

    Each (seed, position) has noise of its own, the same for any logits: where two distributions are alike, so mostly
    is what is drawn from them. The first of exponential alarms, one a token at the rate of its probability, rings for
    each with that probability.
    """
    if not temperature:
        return int(logits.argmax())
    noise = torch.Generator().manual_seed(seed * 1_000_003 + at)
    alarms = torch.empty_like(logits).exponential_(generator=noise)
    shares = torch.softmax(logits / temperature, 0)
    return int(((shares if top_p == 1 else nucleus(shares, top_p)) / alarms).argmax())


def pick(feed: Feed) -> None:
    """The token drawn of each row in use."""
    rows = slice(feed.count)
    heats, next_, logits = feed.temperature.numpy()[rows], feed.next.numpy()[rows], feed.logits.numpy()[rows]
    next_[:] = logits.argmax(1)
    for row in np.flatnonzero(heats).tolist():
        seed, at, top_p = int(feed.seed[row]), int(feed.position[row]), float(feed.top_p[row])
        next_[row] = drawn(feed.logits[row], float(heats[row]), seed, at, top_p)


def advance(state: State, feed: Feed) -> None:
    """What was picked becomes the next step's input."""
    rows = slice(feed.count)
    tokens, positions, slots = (x.numpy()[rows] for x in (feed.token, feed.position, feed.slot))
    tokens[:] = feed.next.numpy()[rows]
    positions += 1
    state.history.numpy()[slots, positions] = tokens
