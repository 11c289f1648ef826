"""How fast llama.cpp decodes an export at keep 0.4 beside the dense model: the shape of Llama-3.2-1B, random weights.

python tests_runtimes/speed.py write FOLDER      # 9 GB: dense and sliced, bf16 and q8_0
python tests_runtimes/speed.py measure FOLDER    # in turn, all in one run; the medians as JSON
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KEEP, TOKENS, ROUNDS, THREADS = 0.4, 32, 3, 2
CASES = [(kind, name) for kind in ("bf16", "q8_0") for name in ("dense", "sliced")]


def write(folder: Path) -> None:
    import torch
    from transformers import AutoTokenizer

    from coreinfer.bench.shapes import random_model
    from coreinfer.export.writing import Writer
    from coreinfer.neurons import every, top, uniform_budgets
    from coreinfer.paths import DEMO_LM

    model: Any = random_model("llama-3.2-1b", torch.bfloat16, "cpu")
    layers, width = model.config.num_hidden_layers, model.config.intermediate_size
    some = top(np.random.default_rng(0).random((layers, width)), uniform_budgets(KEEP, layers, width))
    for kind in ("bf16", "q8_0"):
        writer = Writer(model, AutoTokenizer.from_pretrained(DEMO_LM), "gguf", kind)
        for name, neurons in (("dense", every(layers, width)), ("sliced", some)):
            place = folder / f"{kind}-{name}"
            place.mkdir(parents=True)
            writer.planned(neurons).write(place)


def measure(folder: Path) -> dict[str, Any]:
    import llama_cpp

    models: dict[tuple[str, str], Any] = {
        case: llama_cpp.Llama(
            str(folder / "-".join(case) / "model.gguf"), n_ctx=128, n_batch=1, n_threads=THREADS, verbose=False
        )
        for case in CASES
    }
    speeds: dict[tuple[str, str], list[float]] = {case: [] for case in CASES}
    for _ in range(ROUNDS):
        for case, model in models.items():
            model.reset()
            model.eval([1, 2, 3])
            begun = time.perf_counter()
            for token in range(5, 5 + TOKENS):
                model.eval([token])
            speeds[case].append(TOKENS / (time.perf_counter() - begun))
    medians = {case: statistics.median(rates) for case, rates in speeds.items()}
    return {
        "tokens_per_second": {"-".join(case): round(rate, 2) for case, rate in medians.items()},
        "rounds": {"-".join(case): [round(rate, 2) for rate in rates] for case, rates in speeds.items()},
        "times_dense": {k: round(medians[k, "sliced"] / medians[k, "dense"], 3) for k in ("bf16", "q8_0")},
    }


if __name__ == "__main__":
    place = Path(sys.argv[2])
    write(place) if sys.argv[1] == "write" else print(json.dumps(measure(place)))
