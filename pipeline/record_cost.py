"""What each statistic adds to a model's bare forward without its head: ``python -m pipeline.record_cost``.

A random model of a known shape, random tokens, in turn, the median of several rounds; JSON on the last line.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, cast, get_args

import torch

from coreinfer.bench.shapes import SHAPES, random_model, random_prompt
from coreinfer.capture import Capture
from coreinfer.machine import machine, versions
from coreinfer.models import default_dtype
from coreinfer.settings import StatisticKind, StatisticSettings
from pipeline.record import Recorder
from pipeline.rounds import compared, in_turn

TEXTS, TOKENS, ROUNDS = 8, 1024, 31


def measure(shape: str, device: str, texts: int, tokens: int, rounds: int) -> dict[str, Any]:
    """Recording, from ids to shares, over the forward, in the dtype that is usual on the device."""
    model = random_model(shape, default_dtype(device), device)
    ids = random_prompt(model, texts * tokens).view(texts, tokens)
    mask, some = torch.ones_like(ids), model.base_model

    def bare() -> None:
        some(input_ids=ids, attention_mask=mask, use_cache=False)

    def recording(kind: StatisticKind) -> Callable[[], Any]:
        recorder = Recorder(model, cast(Any, None), StatisticSettings(kind), tokens)  # no texts: nothing is tokenized
        capture = Capture(model, recorder.settings, ends=True)

        def record() -> None:
            with capture:
                recorder._forward(capture, ids, mask)

        return record

    kinds = get_args(StatisticKind)
    with torch.inference_mode():
        took = in_turn({"its bare forward": bare} | {kind: recording(kind) for kind in kinds}, device, rounds)
    costs = {kind: asdict(compared(took, kind, "its bare forward", 1)) for kind in kinds}
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
