"""Workers of a real build that are killed, and builders that want one output. `make test-faults`."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from breaking import sentences, shop_for
from conftest import ROOT, tree, write_corpus

Process = subprocess.Popen[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tiny models, and a corpus of five shards."""
    at = shop_for(tmp_path_factory.mktemp("shop"))
    write_corpus(at / "corpus.jsonl", sentences(2300))
    return at


def start(shop: Path, output: Path, cache: str, *more: str) -> Process:
    return run(output, cache, "build-clusters", shop / "corpus.jsonl", *models(shop), "-c", "4", *more)


def models(shop: Path) -> tuple[object, ...]:
    return "--model", shop / "llama", "--embedder", shop / "bert", "--passage-tokens", "64"


def run(output: Path, cache: str, *words: object) -> Process:
    command = [sys.executable, "-m", "cli", *map(str, words), "-o", str(output), "-q"]
    environment = os.environ | {"COREINFER_CACHE": str(output.parent / cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def whole(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("whole") / "made"
    assert start(shop, place, "cache").wait(300) == 0
    return tree(place)


def workers_of(builder: Process) -> list[int]:
    """The processes that it started."""
    found = subprocess.run(["pgrep", "-P", str(builder.pid)], capture_output=True, text=True, check=False)
    return [int(line) for line in found.stdout.split()]


def lives(process: int) -> bool:
    """Whether it runs; one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def committed(place: Path) -> int:
    """Files of embeddings and sums so far."""
    return len([*place.glob("cache/builds/*/*.npy"), *place.glob("cache/builds/*/sums-*")])


@pytest.mark.parametrize("moment", [0, 1, 3, 6])
def test_a_killed_worker(shop: Path, whole: dict[str, str], tmp_path: Path, moment: int) -> None:
    """Kill one of two when so many files are there: 0: while it starts, 6: while it records."""
    builder = start(shop, tmp_path / "made", "cache", "--workers", "2")
    end = time.monotonic() + 240
    while committed(tmp_path) < moment or len(workers := workers_of(builder)) < 2:
        assert builder.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)
    os.kill(workers[-1], signal.SIGKILL)
    assert builder.wait(300) == 0, builder.communicate()[1]
    assert tree(tmp_path / "made") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "made"]


def test_a_killed_builder_leaves_no_workers(shop: Path, whole: dict[str, str], tmp_path: Path) -> None:
    """They end with it, and another number of workers goes on from what they did."""
    builder = start(shop, tmp_path / "made", "cache", "--workers", "2")
    while committed(tmp_path) < 6 or len(workers := workers_of(builder)) < 2:
        assert builder.poll() is None
        time.sleep(0.005)
    builder.kill()
    builder.wait()
    end = time.monotonic() + 10
    while any(map(lives, workers)):
        assert time.monotonic() < end
        time.sleep(0.05)
    assert start(shop, tmp_path / "made", "cache").wait(300) == 0
    assert tree(tmp_path / "made") == whole
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "made"]


def test_two_workers_update_as_one_process_does(shop: Path, tmp_path: Path) -> None:
    more = write_corpus(tmp_path / "more.jsonl", [f"{text} Indeed." for text in sentences(1100)])
    assert start(shop, tmp_path / "before", "cache", "--limit", "600").wait(300) == 0
    command = ("update", tmp_path / "before", more, *models(shop))
    assert run(tmp_path / "one", "first", *command).wait(300) == 0
    builder = run(tmp_path / "two", "second", *command, "--workers", "2")
    assert builder.wait(300) == 0, builder.communicate()[1]
    assert tree(tmp_path / "two") == tree(tmp_path / "one")


@pytest.mark.parametrize("turn", range(int(os.environ.get("COREINFER_BUILDERS", "50"))))
def test_four_builders_of_one_output(shop: Path, whole: dict[str, str], tmp_path: Path, turn: int) -> None:
    """One wins, the others are told so; each has a cache of its own, so that they meet at the output alone."""
    builders = [start(shop, tmp_path / "made", f"cache-{number}") for number in range(4)]
    ends = [(builder.communicate(timeout=600)[1], builder.returncode) for builder in builders]
    assert sorted(code for _, code in ends) == [0, 2, 2, 2]
    for said, code in ends:
        assert code == 0 or (said.count("\n") == 1 and "made" in said), said
    assert tree(tmp_path / "made") == whole
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
