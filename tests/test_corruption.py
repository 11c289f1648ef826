"""No artifact that lies is loaded: a sample of spoilt files, and all that were made to mislead or to harm.

``tests_faults`` tries a thousand spoilt versions of each file and way. A process with little memory judges them.
"""

import shutil
from pathlib import Path

from conftest import run_cli
from corrupting import BYTES, FILES, SECONDS, judged, summary, wrong
from crafted import LISTED, all_made, make
from small_artifacts import whole as whole

EACH = 40


def test_spoilt_files(whole: Path) -> None:
    verdicts = judged(whole, "spoil", 1, EACH, *FILES)
    assert not (found := [v for v in verdicts if wrong(v)]), found[:5]
    assert len(verdicts) == 2 * EACH * len(FILES), summary(verdicts)
    assert {v["how"] for v in verdicts} >= {"refused", "same"}  # the judge sees both


def test_crafted_artifacts(whole: Path, tmp_path: Path) -> None:
    made = all_made(whole, tmp_path)
    verdicts = judged(whole, "judge", *made)
    assert [v["what"] for v in verdicts] == list(made)
    for verdict in verdicts:
        name = made[verdict["what"]]
        assert verdict["how"] == "refused", (name, verdict)
        assert verdict["seconds"] < SECONDS, (name, verdict)
        assert verdict["bytes"] < BYTES, (name, verdict)
        assert Path(verdict["what"]).name in verdict["said"], (name, verdict)  # the message says which artifact


def test_the_command_says_it_in_one_line(whole: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("other core set", "page of 2 GiB", "threshold 5.0", "pipe")):
        root = Path(shutil.copytree(whole, tmp_path / str(number)))
        make(root, dict(LISTED)[name])
        ended = run_cli("verify", root)
        assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
        assert any(file in ended.err for file in FILES)
