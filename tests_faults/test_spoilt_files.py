"""A thousand spoilt versions of each file of an artifact: none loads as what it is not, none breaks the reader."""

from pathlib import Path

import pytest
from corrupting import FILES, judged, summary, wrong
from small_artifacts import write

EACH = 1000


@pytest.mark.parametrize("name", FILES)
def test_a_thousand_spoilt_files(name: str, tmp_path: Path) -> None:
    """With the manifest's hash as it was, and made to fit."""
    write(tmp_path / "whole")
    verdicts = judged(tmp_path / "whole", "spoil", 7, EACH, name)
    print(f"\n{summary(verdicts)}")
    assert not (found := [v for v in verdicts if wrong(v)]), found[:5]
    assert len(verdicts) == 2 * EACH
