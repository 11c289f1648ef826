"""An artifact as it was hashed: what is parsed of it is that, though another may take its place meanwhile."""

import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from coreinfer import strict_json
from coreinfer.errors import CoreInferError, in_words
from coreinfer.layout import Layout
from coreinfer.manifest import Manifest, hashed
from coreinfer.own_files import Content, Stamp, check_own, check_written

ROOM = 1 << 20  # bytes of a file beside its numbers
MOST_WORDS, MOST_OTHER = 1 << 27, 1 << 26  # bytes of terms and examples, and of a file that is not known here
TRIES = 4  # at an artifact in whose place another one comes meanwhile


class Verified(NamedTuple):
    """An artifact of one manifest, whatever takes its place on disk.

    Attributes:
        digest: the sha256 of the manifest, which has those of all other files: so it names the artifact.
        contents: the bytes that were hashed, by name, of the small files that are known here.
        stamp: of ``neurons.parquet``, which is too large to be held, when it was hashed.
    """

    manifest: Manifest
    digest: str
    contents: dict[str, Content]
    stamp: Stamp


def verify(root: Path) -> Verified:
    """Check the manifest and the size and hash of every file; nothing else is parsed before this passed.

    Raises:
        CoreInferError: not an artifact, another version, or missing or changed files, all of them by name.
        OSError: a file cannot be read.
    """
    layout = Layout(Path(root))
    for _ in range(TRIES):
        if not layout.manifest.is_file():
            raise CoreInferError(
                f"no artifact at {root} (no manifest.json there): make one with `coreinfer build-clusters`"
            )
        text = _text_of(layout.manifest)
        try:
            found = _verified(layout, text)
        except (CoreInferError, OSError):
            if _is_still(layout.manifest, text):
                raise
        else:
            if _is_still(layout.manifest, text):  # else its statistics are gone, which are read later
                return found
    raise CoreInferError(f"{root} was replaced {TRIES} times while it was read: load it when that has ended")


def _is_still(manifest: Path, text: str) -> bool:
    """Whether this is its text; between one artifact and the next there may be none."""
    try:
        return _text_of(manifest) == text
    except (CoreInferError, OSError):
        return False


def _verified(layout: Layout, text: str) -> Verified:
    manifest = Manifest.from_json(text, layout.manifest)
    for path in layout.required:
        if path.name not in manifest.files:
            raise CoreInferError(f"{layout.manifest} does not list {path.name}: rebuild the artifact")
    if layout.index.exists() and layout.index.name not in manifest.files:
        raise CoreInferError(f"{layout.manifest} does not list {layout.index.name}: remove that file or rebuild")
    largest, held, stamps = _largest(layout, manifest), dict[str, Content](), dict[str, Stamp]()
    faults = dict[str, CoreInferError]()
    small = {*largest} - {layout.neurons.name}
    for name, facts in manifest.files.items():
        path = layout.root / name
        if not os.path.lexists(path) and path.suffix == ".faiss":
            continue  # derived from clusters.parquet: rebuilt in memory
        try:
            raw, stamps[name] = _verify_file(path, facts, largest.get(name, MOST_OTHER), name in small)
        except CoreInferError as fault:
            faults[name], raw = fault, b""
        if name in small:
            held[name] = Content(name, raw)
    if faults:
        raise _all_of(faults, layout.root)
    return Verified(manifest, hashlib.sha256(text.encode("utf-8")).hexdigest(), held, stamps[layout.neurons.name])


def _all_of(faults: dict[str, CoreInferError], root: Path) -> CoreInferError:
    """Faults of files, by their names, as one."""
    if len(faults) == 1:
        return next(iter(faults.values()))
    said = (str(fault).removeprefix(f"{root / name} ").partition(": ")[0] for name, fault in faults.items())
    listed = "; ".join(f"{name} {why}" for name, why in zip(faults, said, strict=True))
    return CoreInferError(
        f"{len(faults)} files of {root} are damaged ({listed}): copy the artifact again or rebuild it"
    )


def _largest(layout: Layout, made: Manifest) -> dict[str, int]:
    """Bytes that each file can have: 8 for each number that belongs there, and room. No hash is taken of more."""
    neurons, coordinates = made.layers * made.width, made.clusters * made.dimension
    return {
        layout.clusters.name: ROOM + 8 * coordinates + MOST_WORDS,
        layout.neurons.name: ROOM + (made.clusters + 1) * (ROOM // 64 + 8 * neurons),
        layout.layers.name: ROOM + 24_000 * made.layers,
        layout.sensitivity.name: ROOM + 8 * neurons,
        layout.calibration.name: strict_json.MOST_BYTES,
        layout.index.name: ROOM + 4 * coordinates,
    }


def _text_of(path: Path) -> str:
    """A manifest's text, if it has a manifest's size and is UTF-8."""
    try:
        check_own(path)
        return strict_json.text_of(path)
    except ValueError as error:
        raise CoreInferError(f"{path} is not a valid manifest ({in_words(error)}): rebuild the artifact") from error


def _verify_file(path: Path, facts: dict[str, Any], most: int, held: bool) -> tuple[bytes, Stamp]:
    """The bytes that were hashed, if they are to be held, and the stamp of the file that they were read from."""
    if not os.path.lexists(path):
        raise CoreInferError(f"{path} is missing: copy the artifact again or rebuild it")
    check_own(path)
    if facts["bytes"] > most:
        raise CoreInferError(f"{path} has {facts['bytes']:,} bytes, no more than {most:,} belong there: rebuild it")
    with path.open("rb") as file:
        stamp = Stamp.of(os.fstat(file.fileno()))  # before the hash is: what is written to it after this is noticed
        if stamp.size == facts["bytes"]:
            check_written(path)
            raw = file.read(stamp.size) if held else b""
            if (hashlib.sha256(raw).hexdigest() if held else hashed(file)) == facts["sha256"]:
                return raw, stamp
    raise CoreInferError(f"{path} was changed after the build (its sha256 differs): copy it again or rebuild it")
