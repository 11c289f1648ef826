"""Two builds of one corpus with one seed are the same bytes, in another process and by workers."""

import os
import subprocess
import sys
from pathlib import Path

from command_line import fine
from conftest import ROOT, demo_texts, run_cli, tree, write_corpus


def building(corpus: Path, place: Path, threads: int, *more: str) -> subprocess.Popen[bytes]:
    """A build by the command line, in a process of its own."""
    command: list[str | Path] = [sys.executable, "-m", "cli", "build-clusters", corpus, "-o", place, "-q", *more]
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads),
        "COREINFER_CACHE": str(place.with_name(f"{place.name}-cache")),
    }  # fmt: skip
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def test_processes_do_not_matter(tmp_path: Path) -> None:
    """Up to 200 tokens: among them those whose last bits depend on their batch. Two numbers of clusters are tried."""
    texts = [text[: 200 + 337 * i % 611] for i, text in enumerate(demo_texts(48, 800))]
    corpus = write_corpus(tmp_path / "corpus.jsonl", texts)
    other = building(corpus, tmp_path / "two", threads=1)
    fine(run_cli("build-clusters", corpus, "-o", tmp_path / "one", "-q"))  # conftest: one thread
    assert other.wait(600) == 0
    one, two = (tree(tmp_path / name) for name in ("one", "two"))
    assert one == two
    assert len(one) == 7


def test_workers_do_not_matter(tmp_path: Path) -> None:
    """In float32 on two threads, where last bits are others than on one: workers have two as well."""
    texts = [text[: 40 + 37 * i % 90] for i, text in enumerate(demo_texts(48, 800) * 11)]
    corpus = write_corpus(tmp_path / "corpus.jsonl", [f"{i} {text}" for i, text in enumerate(texts)])
    more = ("--dtype", "float32", "-c", "4", "--statistic", "energy")
    ways: dict[str, tuple[str, ...]] = {"serial": (), "workers": ("--workers", "2")}
    for name, how in ways.items():
        assert building(corpus, tmp_path / name, 2, *more, *how).wait(600) == 0
    serial, workers = (tree(tmp_path / name) for name in ways)
    assert serial == workers
