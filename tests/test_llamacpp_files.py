"""The folder of written files: reuse, broken files, its bound, and a folder that cannot be written."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coreinfer import CoreInferError
from coreinfer.caching import ABANDONED, cache_folder
from coreinfer.llamacpp.files import Files

KEYS = [f"{number:x}" * 64 for number in range(5)]


class Writer:
    """Writes so many bytes, and counts how often."""

    def __init__(self, size: int = 100) -> None:
        self.size, self.times = size, 0

    def __call__(self, path: Path) -> None:
        self.times += 1
        path.write_bytes(bytes(range(self.size % 256)) + b"x" * (self.size - self.size % 256))


def test_a_file_is_written_once(tmp_path: Path) -> None:
    write, files = Writer(), Files(tmp_path / "new" / "gguf")
    first = files.get(KEYS[0], write)
    assert files.get(KEYS[0], write) == first
    assert Files(tmp_path / "new" / "gguf").get(KEYS[0], write) == first
    assert write.times == 1
    assert files.get(KEYS[1], write) != first
    assert write.times == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path, 50),
        lambda path: os.truncate(path, 0),
        lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
        lambda path: path.write_bytes(path.read_bytes() + b"?"),
    ],
)
def test_a_broken_file_is_written_anew(damage: Callable[[Path], object], tmp_path: Path) -> None:
    write, files = Writer(), Files(tmp_path)
    path = files.get(KEYS[0], write)
    whole = path.read_bytes()
    damage(path)
    assert files.get(KEYS[0], write).read_bytes() == whole
    assert write.times == 2
    assert len(list(tmp_path.iterdir())) == 1


def test_the_folder_is_bounded(tmp_path: Path) -> None:
    """What was used least recently goes; what is not ours stays, and what somebody may still be writing."""
    files, write = Files(tmp_path, budget=250), Writer(100)
    (tmp_path / "mine.gguf").write_bytes(b"x" * 1000)
    for name, age in ((f".new-{'0' * 32}.gguf", 0), (f"..new-{'1' * 32}.gguf.part", ABANDONED + 60)):
        (tmp_path / name).write_bytes(b"")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    made = [files.get(key, write) for key in KEYS[:2]]
    for age, path in enumerate(made):
        os.utime(path, (time.time() - 60 + age,) * 2)
    files.get(KEYS[0], write)  # used again
    last = files.get(KEYS[2], write)
    assert {path.name for path in tmp_path.iterdir()} == {
        "mine.gguf", f".new-{'0' * 32}.gguf", made[0].name, last.name,
    }  # fmt: skip
    large = files.get(KEYS[3], Writer(300))
    assert [path.name for path in tmp_path.glob("[0-9]*.gguf")] == [large.name]


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Files(tmp_path).get(KEYS[0], fail)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CoreInferError, match=r"cannot write .*gguf: .*; name another folder in COREINFER_CACHE"):
        Files(tmp_path / "file" / "gguf").get(KEYS[0], Writer())


def test_where_the_folder_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("COREINFER_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("gguf") == tmp_path / "coreinfer" / "gguf"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")  # which its specification has ignored
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    assert cache_folder("gguf") == tmp_path / "home" / ".cache" / "coreinfer" / "gguf"
    monkeypatch.setenv("COREINFER_CACHE", str(tmp_path / "named"))
    assert cache_folder("gguf") == tmp_path / "named" / "gguf"
    monkeypatch.setenv("COREINFER_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(
        CoreInferError, match=r"no place for written files \(.*\): name another folder in COREINFER_CACHE"
    ):
        cache_folder("gguf")
