"""What each statistic adds to a model's bare forward without its head: ``python -m pipeline.record_cost``.

A random model of a known shape, random tokens, in turn, the median of several rounds; JSON on the last line.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, cast, get_args

import torch

from coreinfer.bench.shapes import SHAPES, random_model, random_prompt
from coreinfer.machine import machine, versions
from coreinfer.models import default_dtype
from coreinfer.settings import StatisticKind, StatisticSettings
from pipeline.record import Recorder
from pipeline.rounds import compared, in_turn

TEXTS, TOKENS, ROUNDS = 8, 1024, 31
BARE, COMPILED = "its bare forward", "energy, compiled"


def measure(shape: str, device: str, texts: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Recording, from ids to shares, over the forward, in the dtype that is usual on the device."""
    model = random_model(shape, default_dtype(device), device)
    ids = random_prompt(model, texts * tokens).view(texts, tokens)
    mask, decoder = torch.ones_like(ids), model.base_model

    def bare() -> None:
        decoder(input_ids=ids, attention_mask=mask, use_cache=False)

    kinds: tuple[StatisticKind, ...] = get_args(StatisticKind)
    recorders = {kind: Recorder(model, cast(Any, None), StatisticSettings(kind), tokens) for kind in kinds}
    works: dict[str, Callable[[], Any]] = {
        name: partial(it.shares_of, it.capture(), ids, mask) for name, it in recorders.items()
    }
    with torch.inference_mode():
        took = in_turn({BARE: bare} | works, device, rounds)
    costs = {name: asdict(compared(took, name, BARE, 1)) for name in works}
    if device != "cpu":  # at last: once torch.compile has run in a process, each call of a module takes longer
        fast = recorders["energy"].compiled()
        with torch.inference_mode():
            took = in_turn({BARE: bare, COMPILED: partial(fast.shares_of, fast.capture(), ids, mask)}, device, rounds)
        costs[COMPILED] = asdict(compared(took, COMPILED, BARE, 1))
    return {"shape": shape, "texts": texts, "tokens": tokens, "rounds": rounds, "over_bare_forward": costs}


def main(words: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.record_cost", description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="llama-3.1-8b")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--tokens", type=int, default=TOKENS, help="of each text")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args(words)
    made = measure(given.shape, given.device, given.texts, given.tokens, given.rounds)
    print(json.dumps({"machine": machine(), "versions": versions(), "device": given.device} | made))


if __name__ == "__main__":
    main()
