"""A build's peak memory does not grow with its corpus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, write_corpus
from small_models import save_llama

LAYERS, WIDTH = 2, 4096
SHARE = 4 * LAYERS * WIDTH  # bytes of a passage's share in float32
FEW, MANY = 600, 3000  # more than a block each, so that what a block takes is in both
BUILDS = """
import gc, sys
from pathlib import Path
from coreinfer.settings import StatisticSettings
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

place, embedder = map(Path, sys.argv[1:3])
for number, corpus in enumerate(sys.argv[3:]):
    source = SourceSettings(str(place / corpus))
    settings = BuildSettings(
        source, str(place / "lm"), str(embedder), clusters=8, statistic=StatisticSettings("energy"), dtype="float32",
        calibrate=False,  # it works on a bounded number of texts, which a small corpus has not
    )
    manifest = build_clusters(settings, place / f"made {number}", ways=Ways(cache=False)).manifest
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(manifest.passages, peak.split()[1])
    del manifest
    gc.collect()  # the models, which lie in cycles
"""


def short_passages(count: int, path: Path) -> None:
    topics = ("boats sail", "bread bakes", "comets return", "rivers flood", "engines start")
    write_corpus(path, [f"Passage number {i} says that {topics[i % 5]} on day {i * 7 % 365}." for i in range(count)])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux")
def test_five_times_the_passages_take_no_more_memory(shop: Path, tmp_path: Path) -> None:
    """The peak of one process, which a small corpus has set by then: libraries and models are in it."""
    save_llama(tmp_path / "lm", LAYERS, WIDTH, 512)
    short_passages(FEW, tmp_path / "few.jsonl")
    short_passages(MANY, tmp_path / "many.jsonl")
    corpora = [*["few.jsonl"] * 2, "many.jsonl"]
    command: list[str | Path] = [sys.executable, "-c", BUILDS, tmp_path, shop / "bert", *corpora]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # what one thread gave back, another takes
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, env=environment)
    *_, (few, small), (many, large) = [map(int, line.split()) for line in said.stdout.splitlines()]
    assert few > 0.94 * FEW
    assert many > 0.94 * MANY
    kept = (MANY - FEW) * SHARE  # would be there, were shares not added up one by one
    assert 1024 * (large - small) < kept * 2 / 3, said.stdout
