"""What a server costs over the bare engine, and what grouping by neurons gains over first come, first served.

``python tests_faults/serve_bench.py overhead`` and ``… grouping``: JSON; both sides alternate in one run.
"""

import argparse
import asyncio
import json
import queue
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from serve_client import TOPICS, Process, ask, completion, started

from coreinfer.decode.continuing import Sampling
from coreinfer.engine import Engine
from coreinfer.serve.jobs import Asked, Ended, Failed, Job, Wish
from coreinfer.serve.joining import choose, first_come
from coreinfer.serve.lifetime import Serving, made_of
from coreinfer.serve.limits import Limits
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.running import Pick

TOKENS = 128


def prompts(count: int) -> list[str]:
    return [f"{TOPICS[number % len(TOPICS)]} {number}" for number in range(count)]


def bare(engine: Engine, texts: int, streams: int) -> float:
    """Tokens a second of the engine alone, prefills and all."""
    begun = time.perf_counter()
    if streams == 1:
        made = [engine.generate(prompt, max_new_tokens=TOKENS) for prompt in prompts(texts)]
    else:
        made = list(engine.generate_many(prompts(texts), streams, max_new_tokens=TOKENS))
    return sum(one.new_tokens for one in made) / (time.perf_counter() - begun)


async def served(process: Process, texts: int, streams: int) -> float:
    """Tokens a second that clients got, so many at a time."""
    left, tokens, begun = iter(range(texts)), 0, time.perf_counter()

    async def stream() -> None:
        nonlocal tokens
        for number in left:
            made = await ask(process.port, completion(number, TOKENS, temperature=0))
            assert made.whole
            tokens += made.tokens

    await asyncio.gather(*(stream() for _ in range(streams)))
    return tokens / (time.perf_counter() - begun)


def overhead(rounds: int) -> dict[str, Any]:
    """Medians, and the share that the server loses, by streams. Both sides make the same greedy texts."""
    engine, out = Engine.load(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "log") as process:
        for streams, texts in ((1, 6), (8, 32)):
            bare(engine, streams, streams), asyncio.run(served(process, streams, streams))
            pairs = [
                (bare(engine, texts, streams), asyncio.run(served(process, texts, streams))) for _ in range(rounds)
            ]
            alone, there = (median(side) for side in zip(*pairs, strict=True))
            out[f"{streams} streams"] = {
                "bare": round(alone, 1), "served": round(there, 1), "loss": round(1 - there / alone, 4),
                "pairs": [[round(x, 1) for x in pair] for pair in pairs],
            }  # fmt: skip
    return out


def mixed(engine: Engine, texts: int, tokens: int, told: "queue.SimpleQueue[Any]") -> list[Job]:
    """Topics, and among them texts that keep less, more, or all."""
    jobs = list[Job]()
    for number, prompt in enumerate(prompts(texts)):
        policy, keep = (("auto", 0.2), ("auto", 0.4), ("dense", 1.0))[number * 7 % 3]
        wish = Wish(policy, keep, False, Sampling(), number, tokens)  # type: ignore[arg-type]
        jobs.append(Job([Asked(engine.encode(prompt), prompt)], 1, wish, told.put, time.monotonic() + 600))
    return jobs


def together(engine: Engine, pick: Pick, texts: int, tokens: int) -> float:
    """Tokens a second of a worker to which all come at once."""
    make, _ = made_of(engine, Serving(limits=Limits(queue=texts), pick=pick))

    class Nowhere:
        def flush(self) -> None: ...

    told: queue.SimpleQueue[Any] = queue.SimpleQueue()
    worker, made, ended = make(Nowhere(), Metrics(), lambda: None), 0, 0  # type: ignore[arg-type]
    jobs, begun = mixed(engine, texts, tokens, told), time.perf_counter()
    for job in jobs:
        worker.submit(job)
    worker.start()
    while ended < texts:
        event = told.get()
        assert not isinstance(event, Failed), event
        if isinstance(event, Ended):
            ended, made = ended + 1, made + event.tokens
    took = time.perf_counter() - begun
    worker.end()
    worker.join()
    return made / took


def grouping(rounds: int, size: tuple[int, int]) -> dict[str, Any]:
    """``size``: texts, and tokens of each."""
    engine = Engine.load()
    together(engine, choose, 8, 8)
    pairs = [(together(engine, choose, *size), together(engine, first_come, *size)) for _ in range(rounds)]
    grouped, first = (median(side) for side in zip(*pairs, strict=True))
    rows = [[round(x, 1) for x in pair] for pair in pairs]
    return {
        "grouped": round(grouped, 1),
        "first_come": round(first, 1),
        "ratio": round(grouped / first, 3),
        "pairs": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["overhead", "grouping"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=96)
    given = parser.parse_args()
    found = overhead(given.rounds) if given.what == "overhead" else grouping(given.rounds, (given.texts, given.tokens))
    print(json.dumps({"threads": torch.get_num_threads()} | found))


if __name__ == "__main__":
    main()
