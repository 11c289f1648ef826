"""Where files go: links that lead nowhere are seen early, what is first stays, and what was made is on the disk."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreinfer import disk
from coreinfer.errors import CoreInferError
from coreinfer.places import check_file
from pipeline.folder import appearing, check_output
from pipeline.shards.sealed import begin


@pytest.mark.parametrize("deeper", ["", "made", "not/yet/made"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_that_leads_nowhere_is_refused_early(tmp_path: Path, deeper: str, overwrite: bool) -> None:
    """In the output's place, or on the way to it; so is one that leads to itself."""
    (tmp_path / "mine").symlink_to(tmp_path / "gone")
    (tmp_path / "mine-too").symlink_to("mine-too")
    for link in (tmp_path / "mine", tmp_path / "mine-too"):
        words = f"cannot write {link / deeper}: {link} is a link that leads nowhere; choose another --output"
        with pytest.raises(CoreInferError, match=f"^{words}$"):
            check_output(link / deeper, overwrite)
        assert link.is_symlink()


def test_a_file_may_take_the_place_of_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(tmp_path / "gone")
    check_file(tmp_path / "mine", "choose another")
    with pytest.raises(CoreInferError, match="mine is a link that leads nowhere; choose another"):
        check_file(tmp_path / "mine" / "rows", "choose another")


def test_folders_made_above_it_are_on_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a name in the one above, which is lost with the power unless that one was flushed after it came."""
    flushed, sync = set[Path](), disk.sync

    def noted(path: Path) -> None:
        flushed.update(path / each.name for each in path.iterdir()) if path.is_dir() else flushed.add(path)
        sync(path)

    monkeypatch.setattr(disk, "sync", noted)
    path = tmp_path / "not" / "yet" / "mine"
    with appearing(path, overwrite=False) as (made, _):
        (made / "manifest.json").write_text("{}")
    assert {tmp_path / "not", tmp_path / "not" / "yet", path} <= flushed


@pytest.mark.parametrize("code", sorted({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}))
def test_a_drive_without_links_keeps_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    (tmp_path / "new").write_text("new")
    (tmp_path / "there").write_text("old")
    monkeypatch.setattr(os, "link", failing(code))
    disk.keep_first(tmp_path / "new", tmp_path / "there")
    assert (tmp_path / "there").read_text() == "new"


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOENT])
def test_a_fault_is_no_reason_to_replace_what_was_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    begin(tmp_path / "there", [b"old"])
    begin(tmp_path / "there", [b"new"])
    monkeypatch.setattr(os, "link", failing(code))
    with pytest.raises(OSError, match=os.strerror(code)):
        begin(tmp_path / "there", [b"new"])
    assert (tmp_path / "there").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["there"]


def failing(code: int) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    return fail
