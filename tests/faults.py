"""Builds and updates in which the disk fails, or the process is killed, at one chosen call: a program that tests run.

``python faults.py SHOP CORPUS MORE FOLDER`` reads scenarios from stdin, a JSON object a line, and answers each by a
line. All of its imports are done once; each build of CORPUS, and each update by MORE, runs in a fork of it.

A scenario: ``cache``, ``output`` (names in FOLDER), ``overwrite``, ``fault`` (kill, torn, short, ENOSPC, EIO, EACCES,
late or none), ``at`` (the call at which it happens, from 1; of late, a kill from outside: after how many seconds);
``statistic``, or of an update ``update`` (the artifact's name in FOLDER). The answer: ``code`` (of the exit, or minus
the signal), ``said``, ``calls`` (where it came to its end), ``seconds``, ``state`` (absent, whole, or what is wrong),
``tree`` (sha256 of each file of the output), ``left`` (what lies in FOLDER beside outputs and caches).
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  (here, so that no fork has to)
import sentence_transformers  # noqa: F401
import sklearn.feature_extraction.text  # noqa: F401
from conftest import tree
from failing import Faults
from transformers import AutoTokenizer

from coreinfer import Artifact, CoreInferError, Engine, embedder, identity
from coreinfer.identity import tokenizer_facts
from coreinfer.libraries import quiet_libraries
from coreinfer.settings import StatisticSettings
from pipeline.build import build_clusters
from pipeline.settings import BuildSettings
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings
from pipeline.updating.run import update

opened = AutoTokenizer.from_pretrained


@dataclass(frozen=True)
class Given:
    """What every scenario has: models, the texts of builds and of updates, and where outputs and caches are."""

    shop: Path
    corpus: Path
    more: Path
    folder: Path


def run(given: Given, wanted: dict[str, Any], faults: Faults) -> None:
    """This scenario's build or update; its exit code is the process's."""
    os.environ["COREINFER_CACHE"] = str(given.folder / wanted["cache"])
    if wanted["fault"] not in ("none", "late"):
        faults.install()
    said, code = list[str](), 0
    try:
        (add if wanted.get("update") else build)(given, wanted, said.append)
    except CoreInferError as error:
        said, code = [str(error)], 2
    print(json.dumps({"said": said, "calls": faults.calls}), flush=True)
    os._exit(code)


def build(given: Given, wanted: dict[str, Any], say: Callable[[str], Any]) -> None:
    kind = wanted.get("statistic")
    settings = BuildSettings(
        SourceSettings(str(given.corpus), max_tokens=64), str(given.shop / "llama"), str(given.shop / "bert"),
        clusters=4, statistic=StatisticSettings(kind) if kind else None,
    )  # fmt: skip
    build_clusters(settings, given.folder / wanted["output"], wanted["overwrite"], say=say, ways=Ways())


def add(given: Given, wanted: dict[str, Any], say: Callable[[str], Any]) -> None:
    engine, source = Engine.load(given.folder / wanted["update"]), SourceSettings(str(given.more), max_tokens=64)
    update(engine, source, given.folder / wanted["output"], wanted["overwrite"], say=say, ways=Ways())


def show_state(folder: Path, output: Path) -> None:
    """What lies there after it."""
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
    given = Given(*map(Path, sys.argv[1:]))
    quiet_libraries()
    remember_tokenizers(given.shop)
    for line in sys.stdin:
        wanted = json.loads(line)
        faults, begun = Faults(wanted["fault"], wanted["at"]), time.monotonic()
        patience = wanted["at"] if wanted["fault"] == "late" else None
        code, made = forked(partial(run, given, wanted, faults), patience)
        ended = {"code": code, "seconds": time.monotonic() - begun}
        _, found = forked(partial(show_state, given.folder, given.folder / wanted["output"]))
        print(json.dumps({"said": [], "calls": 0, **made, **ended, **found}), flush=True)


if __name__ == "__main__":
    main()
