"""What a server costs over the bare engine, and what grouping by neurons gains over first come, first served.

``python tests_faults/serve_bench.py overhead`` and ``… grouping``: JSON; both sides alternate in one run.
"""

import argparse
import asyncio
import json
import os
import queue
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from serve_client import TOPICS, Line, Process, completion, started

from coreinfer.decode.continuing import Sampling
from coreinfer.engine import Engine
from coreinfer.serve.jobs import Asked, Ended, Failed, Job, Wish
from coreinfer.serve.joining import first_come
from coreinfer.serve.lifetime import Serving, made_of
from coreinfer.serve.limits import Limits
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.running import Pick

TOKENS = 128


def prompts(count: int) -> list[str]:
    return [f"{TOPICS[number % len(TOPICS)]} {number}" for number in range(count)]


def bare(engine: Engine, texts: int, streams: int) -> float:
    """Tokens a second of the engine alone, prefills and all; it is given as many prompts at a time as clients ask."""
    asked, made, begun = prompts(texts), 0, time.perf_counter()
    for first in range(0, texts, streams):
        if streams == 1:
            made += engine.generate(asked[first], max_new_tokens=TOKENS).new_tokens
        else:
            some = engine.generate_many(asked[first : first + streams], streams, max_new_tokens=TOKENS)
            made += sum(one.new_tokens for one in some)
    return made / (time.perf_counter() - begun)


async def served(process: Process, texts: int, streams: int) -> tuple[float, float]:
    """Tokens a second that so many clients got, and the median of their seconds to a first event."""
    loop, left, firsts = asyncio.get_running_loop(), iter(range(texts)), list[float]()
    bodies, answers = [completion(number, TOKENS, temperature=0) for number in range(texts)], list[bytes]()
    lines = [(await loop.create_connection(Line, "127.0.0.1", process.port))[1] for _ in range(streams)]
    begun = time.perf_counter()

    async def stream(line: Line) -> None:
        for number in left:
            answers.append(await line.post(bodies[number]))
            firsts.append(line.first_s)

    await asyncio.gather(*map(stream, lines))
    took = time.perf_counter() - begun
    for line in lines:
        line.transport.close()
    return sum(map(tokens_of, answers)) / took, median(firsts)


def tokens_of(answer: bytes) -> int:
    """Of a stream, as its last event but one says."""
    *_, used, done = (line for line in answer.decode().splitlines() if line.startswith("data: "))
    assert done == "data: [DONE]", done
    return int(json.loads(used[6:])["usage"]["completion_tokens"])


def overhead(rounds: int) -> dict[str, Any]:
    """Medians, and the share that the server loses, by streams. Both sides make the same greedy texts, in turns; which
    is first changes. The client's work is in the server's time: it has no core of its own.
    """
    engine, out = Engine.load(), dict[str, Any]()
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "log") as process:
        for streams, texts in ((1, 4), (8, 32)):

            def alone(texts: int = texts, streams: int = streams) -> float:
                return bare(engine, texts, streams)

            def there(texts: int = texts, streams: int = streams) -> tuple[float, float]:
                return asyncio.run(served(process, texts, streams))

            alone(), there()
            found = [(alone(), there()) if number % 2 else (there(), alone())[::-1] for number in range(rounds)]
            pairs, firsts = [(a, b) for a, (b, _) in found], [first for _, (_, first) in found]
            left, right = (median(side) for side in zip(*pairs, strict=True))
            out[f"{streams} streams"] = {
                "bare": round(left, 1), "served": round(right, 1), "loss": round(1 - right / left, 4),
                "loss_by_pair": round(1 - median(b / a for a, b in pairs), 4),
                "first_event_ms": round(1e3 * median(firsts), 1),
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


def together(engine: Engine, pick: Pick | None, texts: int, tokens: int) -> float:
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
    together(engine, None, 8, 8)
    ways, pairs = (None, first_come), list[tuple[float, ...]]()
    for number in range(rounds):
        found = [together(engine, pick, *size) for pick in ways[:: 1 if number % 2 else -1]]
        pairs.append(tuple(found[:: 1 if number % 2 else -1]))
    grouped, first = (median(side) for side in zip(*pairs, strict=True))
    rows = [[round(x, 1) for x in pair] for pair in pairs]
    return {
        "grouped": round(grouped, 1),
        "first_come": round(first, 1),
        "ratio": round(grouped / first, 3),
        "ratio_by_pair": round(median(a / b for a, b in pairs), 3),
        "pairs": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["overhead", "grouping"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--tokens", type=int, default=96)
    given = parser.parse_args()
    if os.environ.get("OMP_WAIT_POLICY") != "passive":  # as a server has it; read when torch is imported
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_WAIT_POLICY": "passive"})
    found = overhead(given.rounds) if given.what == "overhead" else grouping(given.rounds, (given.texts, given.tokens))
    print(json.dumps({"threads": torch.get_num_threads()} | found))


if __name__ == "__main__":
    main()
