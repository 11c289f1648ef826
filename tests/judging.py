"""What becomes of a spoilt artifact, in a process with little memory: run as a program, a line of JSON for each.

It imports neither torch nor the test framework, so that what a reader takes is seen beside little else. Each verdict
says ``how`` it ended: ``refused`` by one line, ``same`` (a reader sees nothing but what the good one holds), ``other``
(a different artifact, in which nothing contradicts anything), or ``broken``: another exception, several lines.
"""

import hashlib
import json
import resource
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corrupting import variants

from coreinfer.artifact import GLOBAL, Artifact
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import describe
from coreinfer.upkeep.verifying import verified

ROOM = 1 << 30  # bytes that reading may add


def contents(artifact: Artifact) -> dict[str, Any]:
    """All that a reader sees, by the name of what it is; arrays by their hash."""
    made = asdict(artifact.manifest)
    made["files"] = sorted(made["files"])
    arrays = {name: getattr(artifact, name) for name in (
        "centroids", "sizes", "tokens", "quantiles", "budget_grid", "budget_table", "sensitivity")}  # fmt: skip
    for cluster in range(GLOBAL, artifact.manifest.clusters):
        arrays[f"prior {cluster}"] = artifact.prior(cluster)
        arrays[f"core set {cluster}"] = artifact.core_set(cluster).mask()
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in arrays.items()}
    texts = {"terms": artifact.terms, "examples": artifact.examples}
    return {**{f"manifest.{k}": v for k, v in made.items()}, "calibration": artifact.calibration, **hashes, **texts}


def read_all(root: Path) -> Artifact:
    """What online verbs read at most."""
    artifact = Artifact.load(root)
    for cluster in range(GLOBAL, artifact.manifest.clusters):
        artifact.prior(cluster)
        artifact.core_set(cluster)
    return artifact


def verdict(root: Path, good: dict[str, Any]) -> dict[str, Any]:
    """How reading and verifying ``root`` ends, the seconds, and the bytes of memory at the most beyond before."""
    before, begun = _memory("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    by, said, changed = "read", "", list[str]()
    try:
        read_all(root)
        by = "verify"
        artifact, _ = verified(root)
        seen = contents(artifact)
        changed = sorted(name for name in {*seen, *good} if seen.get(name) != good.get(name))
        how = "other" if changed else "same"
    except CoreInferError as error:
        said = str(error)
        how = "broken" if "\n" in said or not said else "refused"
    except BaseException as error:
        how, said = "broken", repr(error)
    seconds, peak = time.perf_counter() - begun, max(0, _memory("VmHWM") - before)
    return {"how": how, "by": by, "said": said[:400], "changed": changed, "seconds": seconds, "bytes": peak}


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) * 1024


def spoilt(root: Path, name: str, honest: bool, seed: int, count: int) -> None:
    """Each variant of a file in turn, put into ``root`` and judged; ``honest``: the manifest's hash stays.

    Prints what is about to be tried before it is: if the process dies, its parent knows of what.
    """
    good, path, layout = contents(verified(root)[0]), root / name, Layout(root)
    whole, manifest = path.read_bytes(), layout.manifest.read_bytes()
    others = {other.name: other.read_bytes() for other in sorted(root.iterdir()) if other.name != name}
    try:
        for number, (what, raw) in enumerate(variants(whole, others, seed, count)):
            named = {"file": name, "hash": "left" if honest else "fixed", "number": number, "what": what}
            print(json.dumps(named), flush=True)
            path.write_bytes(raw)
            if not honest and name != layout.manifest.name:
                changed = json.loads(manifest)
                changed["files"][name] = describe((path,))[name]
                layout.manifest.write_text(json.dumps(changed))
            print(json.dumps({**named, **verdict(root, good)}), flush=True)
    finally:
        path.write_bytes(whole)
        layout.manifest.write_bytes(manifest)


def main() -> None:
    """``judging.py GOOD spoil SEED COUNT FILE ...``, or ``judging.py GOOD judge FOLDER ...``."""
    root, verb, *rest = sys.argv[1:]
    good = contents(verified(root)[0])  # whatever is loaded once, is
    most = _memory("VmSize") + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if verb == "spoil":
        for name in rest[2:]:
            for honest in (True, False):
                spoilt(Path(root), name, honest, int(rest[0]), int(rest[1]))
        return
    for folder in rest:
        print(json.dumps({"what": folder}), flush=True)
        print(json.dumps({"what": folder, **verdict(Path(folder), good)}), flush=True)


if __name__ == "__main__":
    main()
