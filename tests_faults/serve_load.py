"""Load on a server: many streams, some that leave, some that are malformed or too large, and artifacts that change.

``python tests_faults/serve_load.py --seconds 600`` prints what it saw; ``test_serve_soak`` says what has to hold.
"""

import argparse
import asyncio
import json
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from serve_client import Answer, Process, ask, completion, started

WIDTH = 6 * 2560  # the demo LM's neurons


@dataclass(frozen=True)
class Mix:
    """Shares of all requests; the rest are asked for and read to their end."""

    streams: int = 64
    leaving: float = 0.2
    malformed: float = 0.05
    oversized: float = 0.02


@dataclass
class Seen:
    """What came of it. ``keeps``: shares of neurons kept, by the artifact that an answer said it was of."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict)
    cut: int = 0
    tokens: int = 0
    first_s: list[float] = field(default_factory=list)
    keeps: dict[str, list[float]] = field(default_factory=dict)
    files: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)
    swaps: int = 0
    seconds: float = 0.0

    def note(self, kind: str, made: Answer, tokens: int) -> None:
        self.statuses.setdefault(kind, Counter())[made.status] += 1
        if made.status != 200:
            return
        self.first_s.append(made.first_s)
        keeps = self.keeps.setdefault(made.headers["x-coreinfer-artifact"], [])
        if (share := round(made.core["neurons"] / WIDTH, 3)) not in keeps:
            keeps.append(share)
        if kind == "whole":
            self.tokens += made.tokens
            self.cut += not (made.whole and (made.tokens == tokens or _stopped(made)))

    def facts(self) -> dict[str, Any]:
        first = sorted(self.first_s) or [0.0]
        late = {f"first_token_p{p}_s": round(first[len(first) * p // 100], 3) for p in (50, 95, 99)}
        return late | {
            "statuses": {kind: dict(found) for kind, found in self.statuses.items()}, "cut": self.cut,
            "keeps": self.keeps, "swaps": self.swaps, "seconds": round(self.seconds, 1), "tokens": self.tokens,
            "answers": len(first), "tokens_per_second": round(self.tokens / self.seconds, 1),
            "files": _spread(self.files), "resident_mib": _spread([x >> 20 for x in self.resident]),
            "growth": round(self.growth, 4),
        }  # fmt: skip

    @property
    def growth(self) -> float:
        """Of resident memory from the end of the first quarter to the end, by the median of five samples each."""
        some = self.resident
        if len(some) < 20:
            return 0.0
        at = len(some) // 4
        before, after = sorted(some[at : at + 5])[2], sorted(some[-5:])[2]
        return after / before - 1


def _stopped(made: Answer) -> bool:
    """Whether it ended at the model's own end of text."""
    return any(choice["finish_reason"] == "stop" for chunk in made.chunks for choice in chunk["choices"])


def _spread(values: list[int]) -> list[int]:
    return [values[0], min(values), max(values), values[-1]] if values else []


async def _one(process: Process, mix: Mix, seen: Seen, dice: random.Random, number: int) -> None:
    tokens, kind = dice.randint(8, 48), dice.random()
    if kind < mix.leaving:
        made, name = await ask(process.port, completion(number, 400), leave_after=dice.randint(0, 12)), "leaving"
    elif kind < mix.leaving + mix.malformed:
        broken = dice.choice([b"{", b'{"prompt": 5}', completion(number, 8, nonsense=1), b"\xff\xfe", b"[]"])
        made, name = await ask(process.port, broken), "malformed"
    elif kind < mix.leaving + mix.malformed + mix.oversized:
        made, name = await ask(process.port, completion(number, 8, user="x" * (1 << 20))), "oversized"
    else:
        made, name = await ask(process.port, completion(number, tokens)), "whole"
    seen.note(name, made, tokens)


async def _watch(process: Process, seen: Seen) -> None:
    while True:
        seen.files.append(process.files)
        seen.resident.append(process.resident)
        await asyncio.sleep(1)


async def _swap(process: Process, seen: Seen, artifacts: list[Path], wanted: int, seconds: float) -> None:
    for number in range(wanted):
        await asyncio.to_thread(process.swap, artifacts[(number + 1) % len(artifacts)])
        seen.swaps += 1
        await asyncio.sleep(max(0.0, seconds / wanted - 0.05))


async def load(process: Process, mix: Mix, seconds: float, artifacts: list[Path] | None = None, swaps: int = 0) -> Seen:
    """So many streams at a time, for so long; swaps spread over it."""
    seen, begun, dice = Seen(), time.monotonic(), random.Random(0)
    count = iter(range(1 << 30))

    async def stream() -> None:
        while time.monotonic() - begun < seconds:
            await _one(process, mix, seen, dice, next(count))

    watch = asyncio.create_task(_watch(process, seen))
    swapping = [_swap(process, seen, artifacts, swaps, seconds)] if artifacts else []
    await asyncio.gather(*(stream() for _ in range(mix.streams)), *swapping)
    watch.cancel()
    seen.seconds = time.monotonic() - begun
    return seen


def freed_in_time(metrics: dict[str, float]) -> tuple[int, int]:
    """Texts whose clients left, and those of them that had left their slot within a second."""
    name = "coreinfer_left_seconds"
    return int(metrics[f"{name}_count"]), int(metrics[f'{name}_bucket{{le="1.0"}}'])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--swaps", type=int, default=0)
    parser.add_argument("--artifact", type=Path, nargs="*", help="What to swap between; the first is served at first.")
    given = parser.parse_args()
    first = ["-a", given.artifact[0]] if given.artifact else []
    with tempfile.TemporaryDirectory() as folder, started(Path(folder) / "log", *first) as process:
        seen = asyncio.run(load(process, Mix(given.streams), given.seconds, given.artifact, given.swaps))
        time.sleep(1)
        left, soon = freed_in_time(found := process.metrics())
        idle = {name: found[f"coreinfer_{name}"] for name in ("slots_in_use", "queue_length")}
        print(json.dumps(seen.facts() | {"left": left, "freed_within_1_s": soon, "files_after": process.files} | idle))


if __name__ == "__main__":
    main()
