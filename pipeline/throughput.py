"""How fast the long stages are on this machine, beside what bounds them: ``python -m pipeline.throughput TEXTS``.

Recording over the language model's own forward without its head, embedding over sentence-transformers at its best
setting, and two workers over one, each worker on one thread or one GPU. All in one run, in turn, the median of several
rounds; JSON on the last line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch

from coreinfer.bench.shapes import SHAPES, random_model
from coreinfer.embedder import Embedder
from coreinfer.machine import machine, versions
from coreinfer.models import default_dtype, load_model
from coreinfer.settings import StatisticSettings
from coreinfer.threads import running_on
from pipeline.data import Statistics
from pipeline.embed import embed_texts
from pipeline.passages import BLOCK, write_passages
from pipeline.record import Recorder, longest_passage, pad, record_texts
from pipeline.rounds import compared, in_turn
from pipeline.shards.crew import Event, Slots
from pipeline.shards.keys import embed_facts
from pipeline.shards.plan import Plan
from pipeline.shards.processes import Processes
from pipeline.shards.store import open_store
from pipeline.shards.tasks import EmbedTask, Place
from pipeline.sources import Counts, SourceSettings, read_passages
from pipeline.speed import embedding, recording, speed

ROUNDS = 5
CLUSTERINGS, CLUSTERS = 5, 100  # that recording adds to, as --clusters auto does
PEERS = (8, 16, 32, 64)  # batches of sentence-transformers; more on a GPU
GPU_PEERS = (64, 256, 512)
SHARDS = 8  # a worker's start is not in its rate: the first shard of each is left out


def measure_recording(recorder: Recorder, texts: list[str], rounds: int) -> dict[str, Any]:
    """``record_texts``, from texts to sums, over the model's bare forward in the very batches that are recorded."""
    model, most = cast(Any, recorder.model.base_model), recorder.max_tokens
    encoded = recorder.tokenizer(texts, truncation=True, max_length=most, verbose=False)["input_ids"]
    sizes = np.array([len(ids) for ids in encoded])
    batches = [[encoded[i] for i in picked] for picked in recorder._batches(sizes)]
    labels = np.random.default_rng(0).integers(0, CLUSTERS, (CLUSTERINGS, len(texts)))
    labels += CLUSTERS * np.arange(CLUSTERINGS)[:, None]
    out = Statistics.zeros(CLUSTERS * CLUSTERINGS, *recorder.shape)

    def padded() -> None:
        with torch.inference_mode():
            for rows in batches:
                ids, mask = (x.to(model.device) for x in pad(rows, most))
                model(input_ids=ids, attention_mask=mask, use_cache=False)

    works: dict[str, Callable[[], Any]] = {
        "recording": lambda: record_texts(texts, labels, recorder, out), "its bare forward": padded,
    }  # fmt: skip
    took = in_turn(works, str(model.device), rounds)
    made = speed(recording(recorder, texts), len(texts), median(took["recording"]))
    cost = compared(took, "recording", "its bare forward", 1)
    return {"over_bare_forward": asdict(cost), "speed": made.row()}


def measure_embedding(embedder: Embedder, texts: list[str], rounds: int) -> dict[str, Any]:
    """``embed_texts`` beside sentence-transformers' ``encode`` of the same passages, in the same dtype, which sorts by
    length itself, at the batch that is fastest here.
    """
    device = str(embedder.model.device)
    peers = PEERS if device == "cpu" else GPU_PEERS

    def encode(batch: int) -> Callable[[], Any]:
        return lambda: embedder.model.encode(texts, batch_size=batch, show_progress_bar=False, convert_to_tensor=True)

    works: dict[str, Callable[[], Any]] = {"ours": lambda: embed_texts(texts, embedder)}
    took = in_turn(works | {f"batches of {batch}": encode(batch) for batch in peers}, device, rounds)
    best = min((name for name in took if name != "ours"), key=lambda name: median(took[name]))
    work = embedding(embedder, texts)
    made = None if work is None else speed(work, len(texts), median(took["ours"])).row()
    over = compared(took, "ours", best, -1)
    return {"over_sentence_transformers": asdict(over), "dtype": embedder.dtype, "speed": made}


def measure_workers(passages: Path, count: int, embedder: Embedder, device: str, rounds: int) -> dict[str, Any]:
    """Passages a second of two worker processes over those of one, embedding, each with one thread; from when all have
    done a shard, so that their starts do not count.
    """
    rates: dict[int, list[float]] = {1: [], 2: []}
    plan = Plan(count, count // SHARDS)
    with running_on(1):
        facts = embed_facts(passages, plan, embedder.identity, embedder.encoder, device)
        for workers, found in rounds * [*rates.items()]:
            with tempfile.TemporaryDirectory() as folder:
                store = open_store(Path(folder) / "embed", facts, lambda text: None, False)
                task = EmbedTask(Place(passages, plan, device), store, embedder.name)
                found.append(_rate(task, workers))
    each = [two / one for one, two in zip(rates[1], rates[2], strict=True)]
    one, two = (round(median(found), 2) for found in rates.values())
    return {"one": one, "two": two, "ratio": round(median(each), 4)}


def _rate(task: EmbedTask, workers: int) -> float:
    done = list[tuple[float, int, int]]()

    def hear(event: Event) -> None:
        if event.what == "done":
            done.append((time.perf_counter(), event.worker, event.passages))

    Processes(workers).work(task, range(task.place.plan.count), Slots("measured", ()), lambda passages: None, hear)
    return rate(done)


def rate(done: Sequence[tuple[float, int, int]]) -> float:
    """(seconds, worker, passages) of each shard, as they were done -> passages a second, from when each worker has done
    one: whoever starts later is not waited for twice.
    """
    first = dict[int, float]()
    for at, worker, _ in done:
        first.setdefault(worker, at)
    begun = max(first.values())
    return sum(passages for at, _, passages in done if at > begun) / (done[-1][0] - begun)


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Everything of one machine."""
    device, rounds = arguments.device, arguments.rounds
    recorder = _recorder(arguments)
    embedder = Embedder(arguments.embedder, device)
    source = SourceSettings(arguments.texts)
    some = list(islice(read_passages(source, recorder.lengths, Counts()), SHARDS * arguments.passages))
    texts = [passage.text for passage in some[:: max(1, len(some) // arguments.passages)]][: arguments.passages]
    made = {
        "machine": machine(), "versions": versions(), "device": device, "threads": torch.get_num_threads(),
        "passages": len(texts), "rounds": rounds, "statistic": arguments.statistic,
        "recording": measure_recording(recorder, texts, rounds),
        "embedding": measure_embedding(embedder, texts, rounds),
    }  # fmt: skip
    if arguments.workers:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "passages.parquet"
            count = write_passages(iter(some), path) // SHARDS * SHARDS
            made["workers"] = measure_workers(path, count, embedder, device, arguments.workers)
    return made


def _recorder(arguments: argparse.Namespace) -> Recorder:
    model, tokenizer = load_model(arguments.model, arguments.dtype, "cpu" if arguments.shape else arguments.device)
    if arguments.shape:
        model = random_model(arguments.shape, default_dtype(arguments.device), arguments.device)
    recorder = Recorder(model, tokenizer, StatisticSettings(arguments.statistic), longest_passage(model))
    return recorder.compiled() if arguments.compile else recorder


def main(words: Sequence[str] | None = None) -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.throughput", description=__doc__)
    parser.add_argument("texts", help="as for build-clusters")
    parser.add_argument("--passages", type=int, default=BLOCK, help="recorded and embedded in a round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--workers", type=int, default=1, metavar="ROUNDS", help="of two workers and one; 0 for none")
    parser.add_argument("--statistic", choices=("energy", "griffin", "count"), default="energy")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--shape", choices=sorted(SHAPES), help="a random one of this shape, with --model's tokenizer")
    parser.add_argument("--compile", action="store_true", help="its layers, to record")
    parser.add_argument("--embedder", default="all-MiniLM-L6-v2")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="auto")
    print(json.dumps(measure(parser.parse_args(words))))


if __name__ == "__main__":
    main()
