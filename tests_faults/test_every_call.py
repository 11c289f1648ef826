"""A build that is killed, or whose disk fails, at every single call that changes the disk. `make test-faults`."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from breaking import Broken, breaking

Answer = dict[str, Any]


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Three shards: 512, 512 and 76 passages."""
    with breaking(tmp_path_factory.mktemp("faults"), 1100) as made:
        yield made


@pytest.fixture(scope="module")
def whole(broken: Broken) -> Answer:
    made = broken.build("whole", "kill", 1 << 30)
    assert (made["code"], made["state"], made["left"]) == (0, "whole", [])
    assert made["calls"] > 80
    return made


@pytest.fixture(scope="module")
def old(broken: Broken, whole: Answer) -> Answer:
    """Another artifact, to be replaced."""
    made = broken.build("old", statistic="count")
    assert made["state"] == "whole"
    assert made["tree"] != whole["tree"]
    return made


def forget(broken: Broken, name: str) -> None:
    shutil.rmtree(broken.folder / name, ignore_errors=True)
    shutil.rmtree(broken.folder / f"cache-{name}", ignore_errors=True)


@pytest.mark.parametrize("fault", ["kill", "torn"])
def test_killed_and_run_again(broken: Broken, whole: Answer, fault: str) -> None:
    """The output is absent or whole; the same command then gives the bytes of an uninterrupted build."""
    reused = set[str]()
    for at in range(1, whole["calls"] + 1):
        killed = broken.build("new", fault, at)
        assert killed["code"] == -9, at
        assert killed["state"] == "absent" or killed["tree"] == whole["tree"], at
        again = broken.build("new", overwrite=killed["state"] == "whole")
        assert (again["code"], again["tree"], again["left"]) == (0, whole["tree"], []), (at, again["said"])
        reused |= {line for line in again["said"] if line.startswith("reusing")}
        forget(broken, "new")
    assert "reusing embeddings of 2 of 3 shards" in reused
    assert "reusing embeddings of 3 of 3 shards, clusters, recorded sums of 2 of 3 shards" in reused


def test_killed_while_it_replaces(broken: Broken, whole: Answer, old: Answer) -> None:
    """What stood there stands, or the new one does: at no moment neither, as this system can exchange two folders."""
    for at in range(1, whole["calls"] + 1):
        shutil.copytree(broken.folder / "old", broken.folder / "new")
        killed = broken.build("new", "kill", at, overwrite=True)
        assert killed["tree"] in (old["tree"], whole["tree"]), at
        refused = broken.build("new", "ENOSPC", 1, overwrite=True, cache="none")  # it ends early, and tidies
        assert refused["tree"] in (old["tree"], whole["tree"]), at
        again = broken.build("new", overwrite=True)
        assert (again["code"], again["tree"], again["left"]) == (0, whole["tree"], []), at
        forget(broken, "new")


@pytest.mark.parametrize("fault", ["ENOSPC", "EIO", "EACCES"])
def test_a_failing_disk(broken: Broken, whole: Answer, old: Answer, fault: str) -> None:
    """What stood there stands, or, where only the last flush failed, the new one does; one line says why."""
    shutil.copytree(broken.folder / "old", broken.folder / "new")
    stayed = 0
    for at in range(1, whole["calls"] + 1):
        failed = broken.build("new", fault, at, overwrite=True)
        said = failed["said"][-1]
        assert (failed["code"], failed["left"]) == (2, []), at
        assert said.startswith("cannot write "), at
        assert "\n" not in said, at
        assert failed["tree"] in (old["tree"], whole["tree"]), at
        stayed += failed["tree"] == old["tree"]
        shutil.rmtree(broken.folder / "cache-new", ignore_errors=True)
        if failed["tree"] != old["tree"]:
            shutil.rmtree(broken.folder / "new")
            shutil.copytree(broken.folder / "old", broken.folder / "new")
    assert stayed >= whole["calls"] - 1
    forget(broken, "new")


def test_a_disk_that_takes_less_than_it_is_given(broken: Broken, whole: Answer) -> None:
    for at in range(1, whole["calls"] + 1):
        made = broken.build("new", "short", at)
        assert (made["code"], made["tree"]) == (0, whole["tree"]), at
        forget(broken, "new")
