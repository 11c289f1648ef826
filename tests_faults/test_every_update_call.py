"""An update that is killed at every single call that changes the disk. `make test-faults`."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from breaking import Broken, breaking
from conftest import tree

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Two shards of new passages: 512 and 28."""
    with breaking(tmp_path_factory.mktemp("faults"), 300, 540) as made:
        yield made


@pytest.fixture(scope="module")
def before(broken: Broken) -> dict[str, str]:
    """The artifact that is updated: its files."""
    made = broken.build("before")
    assert made["state"] == "whole"
    return dict(made["tree"])


@pytest.fixture(scope="module")
def whole(broken: Broken, before: dict[str, str]) -> Answer:
    made = broken.update("before", "whole", "kill", 1 << 30)
    assert (made["code"], made["state"], made["left"], made["said"]) == (0, "whole", [], [])
    assert made["calls"] > 40
    assert made["tree"] != before
    return made


def update(broken: Broken, *given: Any, **more: Any) -> Answer:
    """To ``new``."""
    return broken.update("before", "new", *given, **more)


def forget(broken: Broken) -> None:
    shutil.rmtree(broken.folder / "new", ignore_errors=True)
    shutil.rmtree(broken.folder / "cache-new", ignore_errors=True)


@pytest.mark.parametrize("fault", ["kill", "torn"])
def test_killed_and_run_again(broken: Broken, before: dict[str, str], whole: Answer, fault: str) -> None:
    """The output is absent or whole; the same command then gives the bytes of an uninterrupted update."""
    reused = set[str]()
    for at in range(1, whole["calls"] + 1):
        killed = update(broken, fault, at)
        assert killed["code"] == -9, at
        assert killed["state"] == "absent" or killed["tree"] == whole["tree"], at
        again = update(broken, overwrite=killed["state"] == "whole")
        assert (again["code"], again["tree"], again["left"]) == (0, whole["tree"], []), (at, again["said"])
        assert list((broken.folder / "cache-new").rglob("*.part")) == [], at
        assert tree(broken.folder / "before") == before, at
        reused |= set(again["said"])
        forget(broken)
    assert reused == {
        "reusing embeddings of 1 of 2 shards",
        "reusing embeddings of 2 of 2 shards",
        "reusing embeddings of 2 of 2 shards, recorded sums of 1 of 2 shards",
        "reusing embeddings of 2 of 2 shards, recorded sums of 2 of 2 shards",
    }


def test_killed_while_it_replaces(broken: Broken, before: dict[str, str], whole: Answer) -> None:
    """What stood there stands, or the new one does: at no moment neither, as this system can exchange two folders."""
    for at in range(1, whole["calls"] + 1):
        shutil.copytree(broken.folder / "before", broken.folder / "new")
        killed = update(broken, "kill", at, overwrite=True)
        assert (killed["code"], killed["state"]) == (-9, "whole"), at
        assert killed["tree"] in (before, whole["tree"]), at
        refused = update(broken, "ENOSPC", 1, overwrite=True, cache="none")  # it ends early, and tidies
        assert (refused["code"], refused["left"]) == (2, []), at
        assert refused["tree"] == killed["tree"], at
        again = update(broken, overwrite=True)
        assert (again["code"], again["tree"], again["left"]) == (0, whole["tree"], []), at
        assert tree(broken.folder / "before") == before, at
        forget(broken)
