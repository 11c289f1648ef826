"""Run in a process of its own: a streamed model's peaks, and whether its tokens are the whole model's, as JSON."""

import gc
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from coreinfer.clock import Clock
from coreinfer.memory.budget import Budget
from coreinfer.memory.peak import Peak
from coreinfer.models import load_model
from coreinfer.neurons import NeuronSet, top, uniform_budgets
from coreinfer.runtime import Runtimes
from coreinfer.settings import StatisticSettings

KEEP, PROMPT, NEW, LONG = 0.1, 48, 6, 150
GREEDY = {"do_sample": False, "num_beams": 1, "num_return_sequences": 1}
RUNS: list[tuple[Any, int, int]] = [
    ("coreinfer", 0, PROMPT), ("coreinfer", 1, PROMPT), ("coreinfer", 1, LONG), ("transformers", 0, PROMPT),
]  # fmt: skip


def set_of(model: PreTrainedModel, seed: int) -> NeuronSet:
    config: Any = model.config
    shape = config.num_hidden_layers, config.intermediate_size
    return top(np.random.default_rng(seed).random(shape), uniform_budgets(KEEP, *shape))


def texts(model: PreTrainedModel, after: Any = lambda name: None) -> list[list[int]]:
    """The tokens of each run; the set is decided in prefill, so that the statistic is taken."""
    runtimes, made = Runtimes(model, StatisticSettings(), 0), list[list[int]]()
    for runtime, seed, length in RUNS:
        ids = torch.randint(5, 8000, (1, length), generator=torch.Generator().manual_seed(seed))
        neurons = set_of(model, seed)
        decide: Any = lambda shares, count, neurons=neurons: neurons  # noqa: E731
        out = runtimes.run(runtime, ids, decide, NEW, Clock(None), lambda token: False, GREEDY).ids
        made.append(out[0].tolist())
        after(f"{runtime} {seed} {length}")
    return made


def streamed(place: Path) -> Budget:
    made = Budget(str(place), "float32", "cpu", 1 << 40, place.parent / "bundles")
    made.plan = replace(made.plan, streamed=True)
    return made


def main(place: Path) -> None:
    texts(streamed(place / "tiny").load())  # what libraries take once is not the model's
    gc.collect()
    peak, peaks = Peak(torch.device("cpu")), dict[str, int]()
    made = streamed(place / "lm")
    model = made.load()
    kept = sum(set_of(model, 0).per_layer)
    limit = made.plan.needs(kept, LONG, LONG + NEW)
    found = texts(model, lambda name: peaks.update({name: peak.bytes}))
    wanted = texts(load_model(str(place / "lm"), "float32")[0])
    same = [a == b for a, b in zip(found, wanted, strict=True)]
    print(json.dumps({"budget": limit, "peaks": peaks, "same": same}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
