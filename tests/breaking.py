"""Builds and updates that are broken off: a corpus and models for them, and ``faults.py`` as a process that answers."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import ROOT, write_corpus
from small_models import save_bert, save_llama

TOPICS = ("The boat sails", "The bread bakes", "A comet returns", "The river floods", "An engine starts")


def sentences(count: int) -> list[str]:
    return [f"{TOPICS[i % 5]} on day {i} of the year {1000 + 7 * i % 999}." for i in range(count)]


def shop_for(folder: Path) -> Path:
    """``llama`` and ``bert``, tiny and random."""
    save_llama(folder / "llama", 2, 48, 64)
    save_bert(folder / "bert")
    return folder


class Broken:
    """Runs builds and updates; the answers are what ``faults.py`` says. Each output has a cache of its own unless
    another is named.
    """

    def __init__(self, process: "subprocess.Popen[str]", folder: Path) -> None:
        self.process, self.folder = process, folder

    def build(
        self,
        name: str,
        fault: str = "none",
        at: float = 0,
        overwrite: bool = False,
        cache: str = "",
        statistic: str = "",
    ) -> dict[str, Any]:
        """A build of the output ``name``."""
        return self._run(name, fault, at, overwrite, cache, statistic=statistic)

    def update(
        self, artifact: str, name: str, fault: str = "none", at: float = 0, overwrite: bool = False, cache: str = ""
    ) -> dict[str, Any]:
        """An update of ``artifact`` to the output ``name``."""
        return self._run(name, fault, at, overwrite, cache, update=artifact)

    def _run(self, name: str, fault: str, at: float, overwrite: bool, cache: str, **more: str) -> dict[str, Any]:
        wanted = {"output": name, "cache": cache or f"cache-{name}", "overwrite": overwrite, "fault": fault, "at": at}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(wanted | more) + "\n")
        self.process.stdin.flush()
        return dict(json.loads(self.process.stdout.readline()))


@contextmanager
def breaking(folder: Path, passages: int, more: int = 0) -> Iterator[Broken]:
    """For a corpus of so many passages, and updates by so many ``more``, which are other ones."""
    (work := folder / "work").mkdir()
    texts = sentences(passages + more)
    corpora = [
        write_corpus(folder / f"{name}.jsonl", part)
        for name, part in (("corpus", texts[:passages]), ("more", texts[passages:]))
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), "OMP_NUM_THREADS": "1"}
    program = (ROOT / "tests" / "faults.py", shop_for(folder), *corpora, work)
    with subprocess.Popen(
        [sys.executable, *map(str, program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Broken(process, work)
        assert process.stdin is not None
        process.stdin.close()
