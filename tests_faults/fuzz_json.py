"""Coverage-guided fuzzing of the manifest's and the calibration's parsers, for as long as one likes: ``make fuzz``.

It needs atheris, which is no dependency of the tests; arguments are libFuzzer's. It ends at the first input that gives
anything but a value or one line, and leaves that input in a file.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coreinfer", "json"]):
    from coreinfer import strict_json
    from coreinfer.calibrated import check_curve, policy_of
    from coreinfer.errors import CoreInferError
    from coreinfer.manifest import Manifest
    from coreinfer.paths import DEMO_CLUSTERS

SEEDS = ("manifest.json", "calibration.json")


def one_input(raw: bytes) -> None:
    """The text as each of the two files."""
    text = raw.decode("utf-8", "replace")
    said = ""
    try:
        made = Manifest.from_json(text, Path("here"))
        assert Manifest.from_json(made.to_json(), Path("again")) == made
    except CoreInferError as error:
        said = str(error)
    assert "\n" not in said
    try:
        found = strict_json.parse(text)
        policy = policy_of(found)
        check_curve(found)
        assert 0 <= policy.n0_at(0.5, 0.5, 1000) <= policy.n0
    except (ValueError, LookupError, TypeError, RecursionError):  # what an artifact's reader makes one line of
        pass


def main() -> None:
    """Begin with the files that ship."""
    with tempfile.TemporaryDirectory() as corpus:
        for name in SEEDS:
            (Path(corpus) / name).write_bytes((DEMO_CLUSTERS / name).read_bytes())
        atheris.Setup([*sys.argv, corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
