"""Builds on a real Ray, whose actors, and Ray itself, are killed. `make test-ray`."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from breaking import sentences, shop_for
from conftest import ROOT, tree, write_corpus

from coreinfer import CoreInferError
from coreinfer.embedder import Embedder
from coreinfer.machine import versions
from coreinfer.settings import StatisticSettings
from coreinfer.summing import made_with
from pipeline.data import Candidates
from pipeline.passages import BLOCK, Passage, write_passages
from pipeline.shards import keys, parts
from pipeline.shards.actors import Actors, Cluster
from pipeline.shards.crew import Crew, Event, Here, Slots
from pipeline.shards.plan import Plan
from pipeline.shards.store import Facts, open_store
from pipeline.shards.tasks import EmbedTask, Place, RecordTask, Task

pytest.importorskip("ray")

MOMENTS = 20
SHARDS = 6
LONGEST = 60.0  # seconds: nothing hangs


def below(process: int) -> list[int]:
    """All processes that a process started, and those that they did."""
    parents = dict[int, int]()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [process]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def named(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def some(cluster: Cluster, name: str) -> list[int]:
    """The processes of a cluster with this in their names."""
    return [each for each in below(cluster._process.pid) if name in named(each)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = shop_for(tmp_path_factory.mktemp("shop"))
    write_corpus(at / "corpus.jsonl", sentences(2300))
    write_passages((Passage(i, text, "") for i, text in enumerate(sentences(SHARDS * BLOCK))), at / "passages.parquet")
    return at


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    made = Cluster(None, 2, gpus=False)
    yield made
    made.close()


def tasks(shop: Path, place: Path) -> list[Task]:
    """To embed and to record, in new stores."""
    kinds = {"encoder": Embedder(str(shop / "bert")).encoder, "loops": made_with()}
    facts: Facts = {"processor": keys.processor("cpu"), "version": versions(), **kinds}
    stores = [open_store(place / name, facts, print, shared=False) for name in ("embed", "record")]
    corpus = Place(shop / "passages.parquet", Plan(SHARDS * BLOCK, BLOCK), "cpu")
    labels = np.arange(SHARDS * BLOCK, dtype=np.int32)[None] % 3
    options = Candidates([np.eye(3, dtype=np.float32)], labels)
    parts.write_clusters(stores[1].at("clusters"), stores[1].key, options)
    record = RecordTask(
        corpus, stores[1], stores[1].at("clusters"), str(shop / "llama"), "float32", StatisticSettings(), 64
    )
    return [EmbedTask(corpus, stores[0], str(shop / "bert")), record]


def done(task: Task, crew: Crew, hear: Any = lambda event: None) -> bytes:
    """The numbers that come of a stage."""
    crew.work(task, range(SHARDS), Slots("0of1", ()), lambda n: None, hear)
    if isinstance(task, EmbedTask):
        found = [parts.read_embeddings(task.store, shard) for shard in range(SHARDS)]
        return b"".join(each.tobytes() for each in found if each is not None)
    counted, left_out = parts.disjoint(task.store, task.place.plan)
    assert sorted(shard for running in counted for shard in running.shards) == list(range(SHARDS))
    assert not left_out
    return parts.added(counted, (3, 2, 48)).sums.tobytes()


@pytest.fixture(scope="module")
def truth(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """What one process makes of it."""
    return [done(task, Here(task.load())) for task in tasks(shop, tmp_path_factory.mktemp("truth"))]


def test_actors_make_what_one_process_does(shop: Path, cluster: Cluster, truth: list[bytes], tmp_path: Path) -> None:
    assert [done(task, Actors(cluster)) for task in tasks(shop, tmp_path)] == truth
    assert not [name for name in os.listdir(tmp_path / "record") if ".sign" in name]


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_an_actor_is_killed(shop: Path, cluster: Cluster, truth: list[bytes], tmp_path: Path, moment: int) -> None:
    """After so many hundredths of a second of work, in either stage: another takes its place."""
    stage = moment % 2
    task = tasks(shop, tmp_path)[stage]
    events, killed = list[Event](), list[int]()

    def hear(event: Event) -> None:
        events.append(event)
        wanted = moment // 2 % SHARDS
        if not killed and sum(each.what == "done" for each in events) >= wanted and event.what in ("started", "done"):
            end = time.monotonic() + LONGEST
            while not (actors := some(cluster, "ray::Actor")):
                assert time.monotonic() < end
                time.sleep(0.02)
            time.sleep(0.02 * (moment // 2))
            killed.append(actors[moment % len(actors)])
            os.kill(killed[0], signal.SIGKILL)

    begun = time.monotonic()
    assert done(task, Actors(cluster), hear) == truth[stage]
    assert killed
    assert time.monotonic() - begun < 4 * LONGEST
    assert not [event for event in events if event.what in ("failed", "bad", "left")]


GONE = r"Ray cluster \(local\) is gone: start it and run the same command"


@pytest.mark.parametrize("whom", ["Ray itself", "its driver"])
def test_more_than_an_actor_is_killed(shop: Path, truth: list[bytes], tmp_path: Path, whom: str) -> None:
    """Within a minute that is said, and what was done stays. Without a head, actors may live on and finish the work."""
    mine, task = Cluster(None, 2, gpus=False), tasks(shop, tmp_path)[1]
    killed, found, said = list[float](), b"", ""

    def hear(event: Event) -> None:
        if event.what == "done" and not killed:
            killed.append(time.monotonic())
            head = (*some(mine, "gcs_server"), *some(mine, "raylet/raylet"))
            for each in head if whom == "Ray itself" else (mine._process.pid,):
                os.kill(each, signal.SIGKILL)

    try:
        found = done(task, Actors(mine), hear)
    except CoreInferError as error:
        said = str(error)
    finally:
        ended = time.monotonic()
        mine.close()
    assert ended - killed[0] < LONGEST
    assert re.search(GONE, said) if whom == "its driver" or not found else found == truth[1]
    assert parts.disjoint(task.store, task.place.plan)[0]


def command(shop: Path, output: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "cli", "build-clusters", str(shop / "corpus.jsonl"), "-o", str(output), "-c", "4",
        "--model", str(shop / "llama"), "--embedder", str(shop / "bert"), "--passage-tokens", "64", *more,
    ]  # fmt: skip


def start(shop: Path, output: Path, *more: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"COREINFER_CACHE": str(output.parent / f"cache-{output.name}"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(shop, output, *more), cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_build_from_the_command_line(shop: Path, tmp_path: Path) -> None:
    """The bytes of a build in one process; of Ray's own talk nothing comes out, not even when an actor dies."""
    alone = start(shop, tmp_path / "alone")
    assert alone.communicate()[0] == ""
    builder = start(shop, tmp_path / "made", "--engine", "ray", "--workers", "2")
    end = time.monotonic() + 240
    while not (actors := [each for each in below(builder.pid) if "ray::Actor" in named(each)]):
        assert builder.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    os.kill(actors[0], signal.SIGKILL)
    out, err = builder.communicate(timeout=600)
    assert (builder.returncode, out) == (0, ""), err
    assert "starting Ray\n" in err
    assert "raylet" not in err
    assert tree(tmp_path / "made") == tree(tmp_path / "alone")


def test_a_killed_builder_leaves_no_ray(shop: Path, tmp_path: Path) -> None:
    builder = start(shop, tmp_path / "made", "--engine", "ray", "--workers", "2")
    left = list[int]()
    while not any("ray::Actor" in named(each) for each in left):
        assert builder.poll() is None
        time.sleep(0.02)
        left = below(builder.pid)
    builder.kill()
    builder.communicate()
    end = time.monotonic() + LONGEST
    while any("ray" in named(each) for each in left):
        assert time.monotonic() < end
        time.sleep(0.1)
