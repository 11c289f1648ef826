"""An output folder appears whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from coreinfer import strict_json
from coreinfer.claims import claimed
from coreinfer.errors import CoreInferError
from coreinfer.layout import Layout
from coreinfer.manifest import FORMAT
from coreinfer.places import check_place, folder_moved_in, swept, used_folder, writing

REMEDY = "choose another --output"


def check_output(path: Path, overwrite: bool) -> None:
    """Refuse an output before any work is done: where none can be, or where something is.

    Only an artifact, and nothing but one, may be overwritten.
    """
    check_place(path, REMEDY)
    if not path.exists():
        return
    inside = None if path.is_file() else {entry.name + "/" * entry.is_dir() for entry in path.iterdir()}
    own = _own_files(Layout(path).manifest)
    if inside != set() and not own:
        raise CoreInferError(f"{path} exists already and is no artifact, so it stays: choose another --output")
    if not overwrite:
        raise CoreInferError(f"{path} exists already: choose another --output, or add --overwrite to replace it")
    if foreign := sorted((inside or set()) - own):
        raise CoreInferError(
            f"{path} holds {foreign[0]!r}, which is no part of the artifact there, so it is not overwritten: move that "
            "away, or choose another --output"
        )


def _own_files(manifest: Path) -> set[str]:
    """The names of an artifact's files, of whatever version it is; none if ``manifest`` is not an artifact's."""
    try:
        raw = strict_json.read(manifest)
        return {manifest.name, *dict(raw["files"])} if raw["format"] == FORMAT else set()
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return set()


@contextmanager
def appearing(path: Path, overwrite: bool) -> Iterator[tuple[Path, Path]]:
    """Yield (artifact, scratch), two folders beside ``path``; on success the first becomes ``path``, else both go.

    What an earlier try left that was killed goes first, and what that one had moved away is put back.

    Raises:
        CoreInferError: the place cannot be written, the disk is full, or another process is making ``path``.
    """

    def busy() -> NoReturn:
        raise CoreInferError(f"another process is writing {path}: wait until it ends, or {REMEDY}")

    check_output(path, overwrite)
    with writing(path, REMEDY), used_folder(path.parent), claimed(path, busy) as alone:
        if alone:
            swept(path)
        check_output(path, overwrite)
        with folder_moved_in(path, overwrite) as folders:
            yield folders
