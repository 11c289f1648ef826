"""Ways in which a file goes wrong, and the process that judges them. No torch: the judge imports this."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILES = (
    "manifest.json", "clusters.parquet", "neurons.parquet", "layers.parquet", "sensitivity.parquet",
    "calibration.json", "index.faiss",
)  # fmt: skip
WORDS = [0, 1, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
SECONDS, BYTES = 2.0, 1 << 30
DIGITS, MARKS = b"0123456789", b'{}[]",:.-eE \n\\utrunlfaseNaI'


def variants(whole: bytes, others: dict[str, bytes], seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """``count`` spoilt versions of a file, with what was done to each; none equals the whole one."""
    rng = random.Random(seed)
    made = 0
    for name, raw in others.items():
        if made < count:
            yield f"{name} in its place", raw
            made += 1
    while made < count:
        what, raw = _spoil(whole, rng)
        if raw != whole:
            yield what, raw
            made += 1


def _spoil(whole: bytes, rng: random.Random) -> tuple[str, bytes]:
    size = len(whole)
    # Half of all changes go where structure is: the first bytes and the last ones, which hold headers and footers.
    edge = min(size, 1500)
    at = rng.choice([rng.randrange(size), rng.randrange(min(size, 64)), size - 1 - rng.randrange(edge)])
    kind = rng.choice(["bit", "bit", "bit", "byte", "digit", "cut", "word", "zeros", "gone", "twice", "swap", "more"])
    if kind == "bit":
        return f"bit at {at}", _put(whole, at, bytes([whole[at] ^ 1 << rng.randrange(8)]))
    if kind == "byte":
        return f"byte at {at}", _put(whole, at, bytes([rng.choice([0, 0x7F, 0x80, 0xFF, rng.randrange(256)])]))
    if kind == "digit":
        return f"mark at {at}", _put(whole, at, bytes([rng.choice(DIGITS + MARKS)]))
    if kind == "cut":
        return (f"cut at {at}", whole[:at]) if rng.random() < 0.7 else (f"begins at {at + 1}", whole[at + 1 :])
    if kind == "word":
        width = rng.choice([2, 4, 8])
        at = min(at // width * width, max(0, size - width))
        word = (rng.choice(WORDS) & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(["little", "big"]))
        return f"word {word.hex()} at {at}", _put(whole, at, word)
    length = rng.choice([1, 2, 4, 8, 16, 64, 256])
    if kind == "zeros":
        return f"{length} zeros at {at}", _put(whole, at, bytes(min(length, size - at)))
    if kind == "gone":
        return f"{length} bytes gone at {at}", whole[:at] + whole[at + length :]
    if kind == "twice":
        return f"{length} bytes twice at {at}", whole[: at + length] + whole[at:]
    if kind == "swap":
        to = rng.randrange(size)
        a, b = sorted((at, to))
        return f"bytes {a} and {b} swapped", _put(_put(whole, a, whole[b : b + 1]), b, whole[a : a + 1])
    return f"{length} bytes more", whole + rng.randbytes(length)


def _put(whole: bytes, at: int, piece: bytes) -> bytes:
    return whole[:at] + piece + whole[at + len(piece) :]


def judged(good: Path, *arguments: object) -> list[dict[str, Any]]:
    """The verdicts of ``judging.py`` in a process of its own; if it died, the last one says so."""
    folder = Path(__file__).resolve().parent
    command = [sys.executable, str(folder / "judging.py"), str(good), *map(str, arguments)]
    places = {"PYTHONPATH": f"{folder.parent}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=900, env={**os.environ, **places}
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line for line in lines if "how" in line]
    if done.returncode:
        died = {"how": "broken", "said": f"died: {done.returncode} {done.stderr[-300:]}", "changed": []}
        found.append(
            {"file": "", "hash": "", "by": "", "seconds": 0.0, "bytes": 0, **(lines or [{"what": ""}])[-1], **died}
        )
    return found


UNKNOWABLE = {  # what the build alone knows: nothing else in the artifact says it again
    "manifest.model", "manifest.embedder", "manifest.statistic", "manifest.seed", "manifest.config", "calibration",
}  # fmt: skip


def wrong(verdict: dict[str, Any]) -> bool:
    """Whether a spoilt file came through, took too long or too much, or broke something.

    It must be refused; where the hash was made to fit, it may also change nothing that is read, or be a lie that
    nothing could tell from the truth. No hash is of the manifest itself.
    """
    if verdict["seconds"] > SECONDS or verdict["bytes"] > BYTES:
        return True
    if verdict["hash"] == "left" and verdict["file"] != "manifest.json":
        return bool(verdict["how"] != "refused")
    changed = set(verdict["changed"])
    allowed = {"calibration"} if verdict["file"] == "calibration.json" else set[str]()
    if verdict["file"] == "manifest.json":
        allowed = UNKNOWABLE - {"calibration"}
    return verdict["how"] not in ("refused", "same") and not (verdict["how"] == "other" and changed <= allowed)


def summary(verdicts: list[dict[str, Any]]) -> str:
    """How many ended how, the slowest and the largest: a line for each file."""
    rows = list[str]()
    for file, hash_ in dict.fromkeys((v["file"], v["hash"]) for v in verdicts):
        mine = [v for v in verdicts if (v["file"], v["hash"]) == (file, hash_)]
        counts = Counter(v["how"] for v in mine)
        said = ", ".join(f"{n} {how}" for how, n in counts.most_common())
        slowest, most = max(v["seconds"] for v in mine), max(v["bytes"] for v in mine)
        rows.append(f"{file:20} hash {hash_:5} {len(mine):5}: {said}; {slowest:.2f} s, {most / 1e6:.0f} MB at most")
    return "\n".join(rows)
