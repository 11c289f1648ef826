"""A folder in the place of another: in one step where the system can, in two renames where it cannot."""

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreinfer import disk
from coreinfer.places import folder_moved_in

linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot exchange names")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "mine"
    path.mkdir()
    (path / "file").write_text("old")
    return path


def replace(path: Path) -> None:
    with folder_moved_in(path) as (made, _):
        (made / "file").write_text("new")


def contents(root: Path) -> dict[str, str | None]:
    return {str(path.relative_to(root)): path.read_text() if path.is_file() else None for path in root.rglob("*")}


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> None:
        raise error

    return fail


@linux
def test_two_folders_are_exchanged_in_one_step(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is renamed; what the system refuses is said in its words."""
    monkeypatch.setattr(disk, "rename", raising(AssertionError("at no moment is there neither")))
    replace(old)
    assert contents(old.parent) == {"mine": None, "mine/file": "new"}
    with pytest.raises(FileNotFoundError):
        disk.exchange(old, old.parent / "nothing")


@linux
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, "Input/output error")])
def test_an_exchange_that_may_not_be_on_the_disk_is_taken_back(
    old: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    sync = disk.sync

    def fragile(path: Path) -> None:
        if (path / "mine" / "file").exists() and (path / "mine" / "file").read_text() == "new":
            raise error
        sync(path)

    monkeypatch.setattr(disk, "sync", fragile)
    with pytest.raises(type(error)):
        replace(old)
    assert contents(old.parent) == {"mine": None, "mine/file": "old"}


@pytest.mark.parametrize("call", [None, -1], ids=["no such call", "a drive that cannot"])
def test_where_nothing_can_be_exchanged_two_renames_do(
    old: Path, monkeypatch: pytest.MonkeyPatch, call: int | None
) -> None:
    monkeypatch.setattr(disk, "_renameat2", lambda: None if call is None else lambda *names: call)
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EINVAL)
    assert not disk.exchange(old, old)
    replace(old)
    assert contents(old.parent) == {"mine": None, "mine/file": "new"}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.EIO, os.strerror(errno.EIO))])
@pytest.mark.parametrize("number", [0, 1])
def test_an_early_end_between_the_two_renames_puts_the_old_one_back(
    old: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, number: int
) -> None:
    rename, calls = disk.rename, list[Path]()

    def fragile(one: Path, other: Path) -> None:
        calls.append(one)
        if len(calls) == number + 1:
            raise error
        rename(one, other)

    monkeypatch.setattr(disk, "exchange", lambda one, other: False)
    monkeypatch.setattr(disk, "rename", fragile)
    with pytest.raises(type(error)):
        replace(old)
    assert contents(old.parent) == {"mine": None, "mine/file": "old"}
    assert len(calls) > number
