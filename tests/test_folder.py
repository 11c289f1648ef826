"""An output folder appears whole or not at all, and what stood in its place is replaced or left as it was."""

import errno
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coreinfer.errors import CoreInferError
from coreinfer.manifest import FORMAT
from pipeline.folder import appearing, check_output

OLD = json.dumps({"format": FORMAT, "version": 0, "files": {"clusters.parquet": {}, "index.faiss": {}}})


def contents(root: Path) -> dict[str, bytes | None]:
    """Everything below a folder, hidden things too: bytes of files, None for folders."""
    return {str(p.relative_to(root)): p.read_bytes() if p.is_file() else None for p in root.rglob("*")}


def fill(made: Path, scratch: Path, word: str = "new", meanwhile: Path | None = None) -> None:
    if meanwhile is not None:
        meanwhile.parent.mkdir()
        meanwhile.write_text("precious")
    (scratch / "embeddings.npy").write_text("for a while")
    (made / "neurons.parquet").write_text(word)
    (made / "manifest.json").write_text("{}")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An artifact that exists already."""
    path = tmp_path / "mine"
    path.mkdir()
    (path / "manifest.json").write_text(OLD)
    (path / "clusters.parquet").write_bytes(bytes(range(256)))
    return path


def refused(path: Path, *words: str, overwrite: bool = True, body: Callable[[Path, Path], Any] = fill) -> None:
    """One line of ours, and everything around the output as it was."""
    before = contents(path.parent) if path.parent.is_dir() else {}
    with pytest.raises(CoreInferError) as caught, appearing(path, overwrite) as (made, scratch):
        body(made, scratch)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in (path.name, *words)), message
    assert (contents(path.parent) if path.parent.is_dir() else {}) == before


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def ending(error: BaseException) -> Callable[[Path, Path], None]:
    """A build that does its work and then ends early."""

    def body(made: Path, scratch: Path) -> None:
        fill(made, scratch)
        raise error

    return body


@pytest.mark.parametrize("overwrite", [False, True])
def test_it_appears_whole_at_the_end(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "not" / "yet" / "mine"
    with appearing(path, overwrite) as (made, scratch):
        fill(made, scratch)
        assert not path.exists()
        assert made.stat().st_dev == path.parent.stat().st_dev  # so that a rename is enough
    assert contents(path.parent) == {"mine": None, "mine/neurons.parquet": b"new", "mine/manifest.json": b"{}"}


def test_overwriting_replaces_all_of_it(old: Path) -> None:
    with appearing(old, overwrite=True) as (made, scratch):
        fill(made, scratch)
        assert (old / "manifest.json").read_text() == OLD
    assert contents(old.parent) == {"mine": None, "mine/neurons.parquet": b"new", "mine/manifest.json": b"{}"}


def test_a_link_is_replaced_and_what_it_leads_to_is_kept(old: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(old)
    with appearing(link, overwrite=True) as (made, scratch):
        fill(made, scratch)
    assert not link.is_symlink()
    assert (link / "neurons.parquet").read_text() == "new"
    assert (old / "manifest.json").read_text() == OLD
    assert {p.name for p in tmp_path.iterdir()} == {"mine", "link"}


@pytest.mark.parametrize("place", ["mine", "other", "not/yet"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(143), RuntimeError("a bug"), CoreInferError("said")])
def test_an_early_end_leaves_nothing(old: Path, place: str, error: BaseException) -> None:
    """Whatever ended it comes out as it is."""
    before = contents(old.parent)
    with pytest.raises(type(error)) as caught, appearing(old.parent / place, overwrite=True) as (made, scratch):
        ending(error)(made, scratch)
    assert caught.value is error
    assert contents(old.parent) == before


def test_a_full_disk_is_one_line(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    words = ("cannot write", "No space left on device", "free some space")
    for path in (old, old.parent / "other", old.parent / "not" / "yet"):
        refused(path, *words, body=ending(full))
    for owner, name in ((Path, "write_text"), (os, "fsync"), (tempfile, "mkdtemp"), (Path, "mkdir")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, raising(full))
            refused(old, *words)


def test_a_place_that_cannot_be_written(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (old.parent / "file").write_text("a file, no folder")
    for place in (old.parent / "file" / "made", old.parent / "file" / "deeper" / "made"):
        refused(place, "cannot write", f"{old.parent / 'file'} is a file, no folder; choose another --output")
        with pytest.raises(CoreInferError, match="is a file, no folder"):
            check_output(place, overwrite=False)
    refused(old.parent / ("x" * 300), "File name too long")
    monkeypatch.setattr(tempfile, "mkdtemp", raising(PermissionError(errno.EACCES, "Permission denied")))
    refused(old, "cannot write", "Permission denied; choose another --output")


@pytest.mark.parametrize("deeper", ["made", "not/yet/made"])
def test_a_place_without_the_right_to_write_is_refused_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deeper: str
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    with pytest.raises(CoreInferError, match=f"{deeper}: Permission denied; choose another --output"):
        check_output(tmp_path / deeper, overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(old: Path) -> None:
    old.parent.chmod(0o555)
    try:
        refused(old.parent / "made", "cannot write", "Permission denied")
    finally:
        old.parent.chmod(0o755)


def test_what_exists_is_not_overwritten_unasked(old: Path) -> None:
    (old.parent / "empty").mkdir()
    for path in (old, old.parent / "empty"):
        refused(path, "exists already", "--overwrite", overwrite=False, body=raising(AssertionError("no work yet")))


MANIFESTS = [
    '{"manifest_version": 3, "name": "An extension of a browser", "files": {"thesis.tex": {}}}', "", "[]", "null", "{",
    json.dumps({"format": FORMAT}), json.dumps({"format": FORMAT, "files": "thesis.tex"}),
    json.dumps({"format": FORMAT, "files": ["thesis.tex"]}), json.dumps({"format": [FORMAT], "files": {}}),
]  # fmt: skip


@pytest.mark.parametrize("manifest", [None, *MANIFESTS])
def test_only_an_artifact_is_overwritten(tmp_path: Path, manifest: str | None) -> None:
    theses = tmp_path / "theses"
    theses.mkdir()
    (theses / "thesis.tex").write_text("precious")
    if manifest is not None:
        (theses / "manifest.json").write_text(manifest)
    for path in (theses, theses / "thesis.tex"):
        refused(path, "no artifact", body=raising(AssertionError("no work yet")))
        with pytest.raises(CoreInferError, match="no artifact"):
            check_output(path, overwrite=True)


@pytest.mark.parametrize("foreign", ["notes.txt", ".hidden", "neurons.parquet"])
def test_an_artifact_that_holds_more_is_not_overwritten(old: Path, foreign: str) -> None:
    """Neither a file that its manifest does not list, nor a folder in the place of one that it does."""
    check_output(old, overwrite=True)
    (old / foreign).write_text("precious")
    refused(old, repr(foreign), "move that away", body=raising(AssertionError("no work yet")))
    (old / foreign).unlink()
    (old / "index.faiss").mkdir()
    (old / "index.faiss" / "thesis.tex").write_text("precious")
    refused(old, "'index.faiss/'", body=raising(AssertionError("no work yet")))


def test_an_empty_folder_may_become_one(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.mkdir()
    check_output(path, overwrite=True)
    with appearing(path, overwrite=True) as (made, scratch):
        fill(made, scratch)
    assert sorted(contents(tmp_path)) == ["empty", "empty/manifest.json", "empty/neurons.parquet"]


def test_what_a_killed_process_left_goes_and_what_it_moved_away_returns(old: Path) -> None:
    """A folder that is another output's is left alone."""
    left, other = old.parent / ".mine.ab_cd123.part", old.parent / ".mine.v2.abcdefgh.part"
    for work in (left, other):
        (work / "made").mkdir(parents=True)
    before = contents(old)
    old.rename(left / "replaced")
    with pytest.raises(CoreInferError, match="mine exists already"), appearing(old, overwrite=False):
        raise AssertionError("no work yet")
    assert contents(old) == before
    assert {path.name for path in old.parent.iterdir()} == {"mine", other.name}


def test_what_came_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    words = r"cannot write .*mine: Directory not empty"
    with pytest.raises(CoreInferError, match=words), appearing(path, overwrite=False) as (made, scratch):
        fill(made, scratch, meanwhile=path / "thesis.tex")
    assert contents(tmp_path) == {"mine": None, "mine/thesis.tex": b"precious"}


def test_one_process_at_a_time(old: Path) -> None:
    words = r"another process is writing .*mine: wait until it ends"
    with appearing(old, overwrite=True) as (made, scratch):
        fill(made, scratch)
        with pytest.raises(CoreInferError, match=words), appearing(old, overwrite=True):
            raise AssertionError("no work yet")
    assert (old / "neurons.parquet").read_text() == "new"
