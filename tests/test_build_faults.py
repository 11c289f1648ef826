"""A build that is killed, or whose disk fails, at some call: what stood there stands, and the next try goes on to the
bytes of an uninterrupted build. ``make test-faults`` tries every call.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from breaking import Broken, breaking


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Two shards: 512 passages and 88."""
    with breaking(tmp_path_factory.mktemp("faults"), 600) as made:
        yield made


@pytest.fixture(scope="module")
def whole(broken: Broken) -> dict[str, Any]:
    """A build that nothing broke off, and how many calls it made."""
    made = broken.build("whole", "kill", 1 << 30)
    assert (made["code"], made["state"], made["left"]) == (0, "whole", [])
    return made


@pytest.mark.parametrize(("fault", "share"), [("kill", 0.05), ("torn", 0.7)])
def test_killed_and_run_again(broken: Broken, whole: dict[str, Any], fault: str, share: float) -> None:
    at = round(share * whole["calls"])
    name = f"{fault}-{at}"
    killed = broken.build(name, fault, at)
    assert killed["code"] == -9
    assert killed["state"] == "absent"
    again = broken.build(name)
    assert (again["code"], again["tree"], again["left"]) == (0, whole["tree"], [])
    assert any("reusing embeddings of" in line for line in again["said"]) == (share > 0.2)


def test_a_failing_disk(broken: Broken, whole: dict[str, Any]) -> None:
    """Over an artifact, which stays."""
    at = round(0.2 * whole["calls"])
    failed = broken.build("whole", "ENOSPC", at, overwrite=True, cache="other", statistic="count")
    assert (failed["code"], failed["tree"], failed["left"]) == (2, whole["tree"], [])
    said = failed["said"][-1]
    assert said.startswith(f"cannot write {broken.folder / 'other' / 'builds'}")
    assert said.endswith("No space left on device; free some space or name another folder in COREINFER_CACHE, or add "
                         "--no-cache")  # fmt: skip
