"""``python -m pipeline.scale``: the cost of clusters at any size, as JSON lines, and as tables of Markdown."""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from coreinfer.machine import hardware, machine
from coreinfer.progress import stages
from coreinfer.wording import table
from pipeline.scale.curve import Point, Search, curve, is_approximate, search
from pipeline.scale.synthetic import Synthetic

TOPICS = 1 << 16
Measured = TypeVar("Measured", Point, Search)


def main() -> None:
    """Measure, print a line of JSON for each point, and write the tables."""
    ask = argparse.ArgumentParser(prog="python -m pipeline.scale", description=__doc__)
    ask.add_argument("--embeddings", type=int, nargs="*", default=[10**4, 10**5, 10**6, 10**7])
    ask.add_argument("--clusters", type=int, nargs="*", default=[256, 4096, 65_536])
    ask.add_argument("--search", type=int, nargs="*", default=[1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18])
    ask.add_argument("--dimension", type=int, default=384)
    ask.add_argument("--scratch", type=Path, help="where the embeddings lie meanwhile; 10,000,000 take 15 GB")
    ask.add_argument("--tables", type=Path, help="a file for the tables")
    ask.add_argument("--lines", type=Path, help="measure nothing: make tables of lines that were printed before")
    told = ask.parse_args()
    points, found = _read(told.lines) if told.lines else _measured(told)
    if told.tables is not None:
        now = machine()
        head = f"{hardware(now)}; {now['date'][:10]}"
        told.tables.write_text("\n\n".join([head, _curve_table(points), _search_table(found)]) + "\n", "utf-8")


def _measured(told: argparse.Namespace) -> tuple[list[Point], list[Search]]:
    made = Synthetic(TOPICS, told.dimension)
    with tempfile.TemporaryDirectory(dir=told.scratch) as scratch, stages(quiet=False) as stage:
        points = list(_printed(curve(made, told.embeddings, told.clusters, Path(scratch), stage)))
    return points, list(_printed(search(Synthetic(k, told.dimension)) for k in told.search))


def _read(lines: Path) -> tuple[list[Point], list[Search]]:
    rows = [json.loads(line) for line in lines.read_text("utf-8").splitlines()]
    points = [Point(**row) for row in rows if "embeddings" in row]
    return sorted(points, key=lambda p: (p.embeddings, p.clusters)), [Search(**r) for r in rows if "make" in r]


def _printed(some: Iterator[Measured]) -> Iterator[Measured]:
    for one in some:
        print(json.dumps(asdict(one)), flush=True)
        yield one


def _curve_table(points: Sequence[Point]) -> str:
    rows = [["embeddings", "clusters", "trained on", "train, s", "peak, MB", "assign, s", "µs each", "peak, MB"]]
    rows[0] += ["similarity", "search", "recall"]
    rows += [
        [
            f"{p.embeddings:,}", f"{p.clusters:,}", f"{p.trained_on:,}", f"{p.train:.1f}", _megabytes(p.train_peak),
            f"{p.assign:.1f}", f"{1e6 * p.assign / p.embeddings:.1f}", _megabytes(p.assign_peak),
            f"{p.similarity:.4f}", "approximate" if is_approximate(p.clusters) else "exact", f"{p.recall:.4f}",
        ]
        for p in points
    ]  # fmt: skip
    return table(rows)


def _search_table(found: Sequence[Search]) -> str:
    rows = [["clusters", "made in, s", "alone: exact, µs", "approximate", "together: exact, µs", "approximate"]]
    rows[0] += ["nearest found", "of the 16 nearest"]
    rows += [
        [
            f"{s.clusters:,}", f"{s.make:.2f}", f"{s.exact_alone:,.0f}", f"{s.alone:,.0f}", f"{s.exact:,.0f}",
            f"{s.together:,.0f}", f"{s.nearest:.4f}", f"{s.sixteen:.4f}",
        ]
        for s in found
    ]  # fmt: skip
    return table(rows)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f}"


if __name__ == "__main__":
    main()
