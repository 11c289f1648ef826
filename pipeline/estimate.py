"""How long a build will take, measured on a few of its own passages before the long stages begin."""

import time
from pathlib import Path

from coreinfer.embedder import Embedder
from pipeline.embed import read_windows
from pipeline.record import Recorder

SAMPLE, WORTH = 32, 1000  # passages timed; a corpus below WORTH passages is not worth it


def seconds_needed(passages: Path, total: int, embedder: Embedder, recorder: Recorder) -> float | None:
    """Seconds to embed and record ``total`` passages, from ``SAMPLE`` of the first window; None for a small corpus."""
    if total < WORTH:
        return None
    _, texts = next(iter(read_windows(passages)))
    some = texts[:: max(1, len(texts) // SAMPLE)][:SAMPLE]
    for _ in ("to warm up", "to time"):
        begun = time.perf_counter()
        embedder.embed(some)
        for _ in recorder.shares(some):
            pass
    return (time.perf_counter() - begun) / len(some) * total


def in_words(seconds: float) -> str:
    """At the precision that an estimate has: "about 40 s", "about 25 min", "about 3 h"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * size:
            return f"about {round(seconds / size)} {unit}"
    return f"about {max(1, round(seconds))} s"
