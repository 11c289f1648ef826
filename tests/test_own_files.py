"""What lies in an artifact's folder is its own: no link out of it, but a snapshot in the Hub's cache; no holes."""

import os
from pathlib import Path

import pytest
from small_artifacts import read_all, refused
from small_artifacts import whole as whole

from coreinfer.errors import CoreInferError
from coreinfer.own_files import MOST_HOLES, check_written


def downloaded(whole: Path, cache: Path, below: str = "") -> Path:
    """The artifact as the Hub's library leaves it: each file a link to a blob that is named by its hash."""
    repository = cache / "models--me--it"
    folder = repository / "snapshots" / ("a" * 40) / below
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    for number, file in enumerate(sorted(whole.iterdir())):
        blob = repository / "blobs" / f"{number:064}"
        blob.write_bytes(file.read_bytes())
        (folder / file.name).symlink_to(os.path.relpath(blob, folder))
    return folder


@pytest.mark.parametrize("below", ["", "artifacts/small"])
def test_a_snapshot_in_the_hubs_cache_is_read(whole: Path, tmp_path: Path, below: str) -> None:
    """By its own path, and where the cache itself lies elsewhere than it seems to."""
    folder = downloaded(whole, tmp_path / "disk", below)
    read_all(folder)
    (tmp_path / "cache").symlink_to(tmp_path / "disk")
    read_all(tmp_path / "cache" / folder.relative_to(tmp_path / "disk"))


def test_its_hashes_count_as_ever(whole: Path, tmp_path: Path) -> None:
    folder = downloaded(whole, tmp_path)
    blob = (folder / "layers.parquet").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"?")
    refused(folder, "layers.parquet", "sha256")


@pytest.mark.parametrize("name", ["neurons.parquet", "manifest.json", "index.faiss"])
@pytest.mark.parametrize("where", ["../../../outside", "../../../models--me--other/blobs/x", "../../x", "chain"])
def test_links_out_of_its_repository_are_refused(whole: Path, tmp_path: Path, name: str, where: str) -> None:
    """Also through a blob that is a link itself."""
    folder = downloaded(whole, tmp_path)
    link, right = folder / name, (folder / name).resolve()
    (outside := tmp_path / "models--me--other" / "blobs").mkdir(parents=True)
    for place in (tmp_path / "outside", outside / "x", tmp_path / "models--me--it" / "x"):
        place.write_bytes(right.read_bytes())
    if where == "chain":
        right.unlink()
        right.symlink_to(tmp_path / "outside")
    else:
        link.unlink()
        link.symlink_to(where)
    refused(folder, name, "is a link")


def test_a_folder_of_blobs_alone_is_no_cache(whole: Path, tmp_path: Path) -> None:
    """Only what lies in ``snapshots`` may have links."""
    folder = downloaded(whole, tmp_path)
    folder.parent.rename(folder.parent.with_name("elsewhere"))
    refused(folder.parent.with_name("elsewhere") / folder.name, "manifest.json", "is a link")


def test_holes_are_told_from_zeros(tmp_path: Path) -> None:
    """However many there are; a few are no fault."""
    page = 1 << 16
    (tmp_path / "zeros").write_bytes(bytes(3 * MOST_HOLES))
    check_written(tmp_path / "zeros")
    with (tmp_path / "few").open("wb") as few, (tmp_path / "many").open("wb") as many:
        for number in range(0, 4 * MOST_HOLES // page, 2):
            many.seek(number * page)
            many.write(bytes(page))
        few.seek(MOST_HOLES // 2)
        few.write(b"end")
    check_written(tmp_path / "few")
    (tmp_path / "open end").touch()
    os.truncate(tmp_path / "open end", 1 << 40)
    for name in ("many", "open end"):
        with pytest.raises(CoreInferError, match=r"not all of them were ever written"):
            check_written(tmp_path / name)
