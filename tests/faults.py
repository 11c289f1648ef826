"""Builds in which the disk fails, or the process is killed, at one chosen call: a program that tests run.

``python faults.py SHOP CORPUS FOLDER`` reads scenarios from stdin, a JSON object a line, and answers each by a line.
All of its imports are done once; each build runs in a fork of it.

A scenario: ``cache``, ``output`` (names in FOLDER), ``overwrite``, ``fault`` (kill, torn, short, ENOSPC, EIO, EACCES,
late or none), ``at`` (the call at which it happens, from 1; of late, a kill from outside: after how many seconds),
``statistic``. The answer: ``code`` (of the exit, or minus the signal), ``said``, ``calls`` (where the build came to its
end), ``seconds``, ``state`` (absent, whole, or what is wrong), ``tree`` (sha256 of each file of the output), ``left``
(what lies in FOLDER beside outputs and caches).
"""

import errno
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from io import FileIO
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  (here, so that no fork has to)
import pyarrow.parquet as pq
import sentence_transformers  # noqa: F401
import sklearn.feature_extraction.text  # noqa: F401
from conftest import tree
from transformers import AutoTokenizer

from coreinfer import Artifact, CoreInferError, disk, embedder, identity
from coreinfer.identity import tokenizer_facts
from coreinfer.libraries import quiet_libraries
from coreinfer.settings import StatisticSettings
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.shards import work
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

opened = AutoTokenizer.from_pretrained


class Faults:
    """Counts the calls that change what is on the disk, and makes one of them go wrong."""

    def __init__(self, fault: str, at: float) -> None:
        self.fault, self.at, self.calls = fault, at, 0
        self.unsynced = set[Path]()

    def install(self) -> None:
        """In place of the calls themselves."""
        self._wrap(disk, "put", self._half)
        for owner, name in (
            (disk, "sync"), (disk, "rename"), (disk, "exchange"), (disk, "replace"), (disk, "keep_first"),
            (work, "write_vectors"), (Path, "write_text"), (Path, "write_bytes"), (pq.ParquetWriter, "write_table"),
        ):  # fmt: skip
            self._wrap(owner, name, lambda call, *given: None)
        put, sync = disk.put, disk.sync

        def noted(file: FileIO, data: memoryview) -> int:
            self.unsynced.add(Path(str(file.name)))
            return put(file, data)

        def flushed(path: Path) -> None:
            sync(path)
            self.unsynced.discard(path)

        disk.put, disk.sync = noted, flushed

    def _wrap(self, owner: Any, name: str, before: Callable[..., Any]) -> None:
        call = getattr(owner, name)

        def counted(*given: Any, **more: Any) -> Any:
            if str(given[0]).startswith("/proc/"):  # the stopwatch's word to the system: no disk takes it
                return call(*given, **more)
            self.calls += 1
            if self.calls < self.at or (self.calls > self.at and self.fault != "ENOSPC"):
                return call(*given, **more)
            if self.fault == "short":
                taken = before(call, *given)
                return call(*given, **more) if taken is None else taken
            if self.fault in ("kill", "torn"):
                before(call, *given)
                self._kill()
            raise OSError(getattr(errno, self.fault), os.strerror(getattr(errno, self.fault)))

        setattr(owner, name, counted)

    def _half(self, call: Callable[..., int], file: FileIO, data: memoryview) -> int:
        return call(file, data[: max(1, len(data) // 2)])

    def _kill(self) -> None:
        """At once; of what was never flushed, torn loses the half, as a machine without power does."""
        for path in self.unsynced if self.fault == "torn" else ():
            if path.exists():
                os.truncate(path, path.stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)


def build(shop: Path, corpus: Path, folder: Path, wanted: dict[str, Any], faults: Faults) -> None:
    """A build of this scenario; its exit code is the process's."""
    os.environ["COREINFER_CACHE"] = str(folder / wanted["cache"])
    kind = wanted.get("statistic")
    settings = BuildSettings(
        SourceSettings(str(corpus), max_tokens=64), str(shop / "llama"), str(shop / "bert"), clusters=4,
        statistic=StatisticSettings(kind) if kind else None,
    )  # fmt: skip
    if wanted["fault"] not in ("none", "late"):
        faults.install()
    said, code = list[str](), 0
    try:
        build_clusters(settings, folder / wanted["output"], wanted["overwrite"], say=said.append, ways=Ways())
    except CoreInferError as error:
        said, code = [str(error)], 2
    print(json.dumps({"said": said, "calls": faults.calls}), flush=True)
    os._exit(code)


def show_state(folder: Path, output: Path) -> None:
    """What lies there after a build."""
    found: dict[str, Any] = {"state": "absent", "tree": {}}
    if output.exists():
        try:
            Artifact.load(output)
            found = {"state": "whole", "tree": tree(output)}
        except CoreInferError as error:
            found["state"] = str(error)
    left = sorted(path.name for path in folder.iterdir() if path.name.startswith("."))
    print(json.dumps(found | {"left": left}), flush=True)


def forked(work: Callable[[], Any], seconds: float | None = None) -> tuple[int, dict[str, Any]]:
    """How a process ended that did ``work``, and the JSON that it printed, if it came to that. One that has printed
    nothing after so many seconds is killed.
    """
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.dup2(write, 1)
        os.close(read)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    os.close(write)
    with open(read, encoding="utf-8") as answers:
        if not select.select([answers], [], [], seconds)[0]:
            os.kill(child, signal.SIGKILL)
        lines = answers.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, json.loads(lines[-1]) if lines else {}


def remember_tokenizers(shop: Path) -> None:
    """Half of so small a build would go into trying out two vocabularies."""
    known = {len(tokenizer): tokenizer_facts(tokenizer) for tokenizer in map(opened, (shop / "llama", shop / "bert"))}
    for module in (identity, embedder):
        vars(module)["tokenizer_facts"] = lambda tokenizer: known[len(tokenizer)]


def main() -> None:
    """Scenario after scenario."""
    shop, corpus, folder = (Path(name) for name in sys.argv[1:])
    quiet_libraries()
    remember_tokenizers(shop)
    for line in sys.stdin:
        wanted = json.loads(line)
        faults, begun = Faults(wanted["fault"], wanted["at"]), time.monotonic()
        patience = wanted["at"] if wanted["fault"] == "late" else None
        code, made = forked(partial(build, shop, corpus, folder, wanted, faults), patience)
        ended = {"code": code, "seconds": time.monotonic() - begun}
        _, found = forked(partial(show_state, folder, folder / wanted["output"]))
        print(json.dumps({"said": [], "calls": 0, **made, **ended, **found}), flush=True)


if __name__ == "__main__":
    main()
