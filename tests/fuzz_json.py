"""Coverage-guided fuzzing of an artifact's two JSON files, for as long as one likes: a program, which tests run.

``python fuzz_json.py manifest|calibration -max_total_time=60``; what follows the name are libFuzzer's arguments. It
begins with the file that ships, and ends at the first input that gives anything but a value or one line, which it
leaves in a file. A third of all changes are of bytes, the others of values, so that they come past the syntax.
"""

import copy
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["coreinfer", "json"]):
    import json

    from coreinfer import strict_json
    from coreinfer.artifact import FAULTS
    from coreinfer.calibrated import check_curve, policy_of
    from coreinfer.errors import CoreInferError
    from coreinfer.manifest import Manifest
    from coreinfer.paths import DEMO_CLUSTERS

LEAVES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 0.5, 2.0, 1e308, float("nan"), float("inf"), 1 << 31, 1 << 63, 1 << 200, "", "..", "a/b",
    "\x1b", "0" * 64, [], {}, [[]], {"": {}},
)  # fmt: skip


def manifest(text: str) -> None:
    """It says the same again when it is written and read once more."""
    made = Manifest.from_json(text, Path("here"))
    assert Manifest.from_json(made.to_json(), Path("again")) == made


def calibration(text: str) -> None:
    """A policy that was let through gives a number that makes sense."""
    try:
        found = strict_json.parse(text)
        policy = policy_of(found)
        check_curve(found)
    except FAULTS:  # what the artifact's reader makes one line of
        return
    assert 0 <= policy.n0_at(0.5, 0.5, 1000) <= policy.n0


PARSERS = {"manifest": manifest, "calibration": calibration}


def mutated(raw: bytes, most: int, seed: int, whole: bytes) -> bytes:
    """Another input of at most so many bytes. Most inputs that show something new are broken somewhere, and what is
    changed in them behind that is not seen: so a third of all are made from the ``whole`` file.
    """
    rng = random.Random(seed)
    try:
        value = json.loads(rng.choice((b"", raw, whole)))
    except (ValueError, RecursionError):
        return bytes(atheris.Mutate(raw, most))
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        value = changed(value, rng)
    return json.dumps(value).encode()[:most]


def changed(value: Any, rng: random.Random) -> Any:
    """A value in which one, however deep, is another, is gone, or stands under a second name."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(LEAVES)) if rng.random() < 0.8 else [value]
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    if (chance := rng.random()) < 0.1:
        del value[key]
    elif chance < 0.2:
        other = rng.choice([str(key) + "x", "policy", "files", ""])
        value.update({other: value[key]}) if isinstance(value, dict) else value.append(value[key])
    else:
        value[key] = changed(value[key], rng)
    return value


def main() -> None:
    """Begin with the file that ships."""
    name, *arguments = sys.argv[1:]

    def one_input(raw: bytes) -> None:
        try:
            PARSERS[name](raw.decode("utf-8", "replace"))
        except CoreInferError as error:
            if "\n" in str(error):
                raise AssertionError(str(error)) from error

    whole = (DEMO_CLUSTERS / f"{name}.json").read_bytes()
    with tempfile.TemporaryDirectory() as corpus:
        (Path(corpus) / "seed").write_bytes(whole)
        change = partial(mutated, whole=whole)
        atheris.Setup([sys.argv[0], *arguments, "-max_len=16384", corpus], one_input, custom_mutator=change)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
