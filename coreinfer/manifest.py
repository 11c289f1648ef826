"""The manifest of an artifact: every file by name, size and sha256, checked before any parser sees a byte of it.

``artifacts/FORMAT.md`` is the language-neutral specification.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from coreinfer import strict_json
from coreinfer.errors import CoreInferError, in_words
from coreinfer.layout import Layout
from coreinfer.settings import StatisticSettings, check_keep

MANIFEST = Layout(Path()).manifest.name
FORMAT, VERSION, METRIC = "coreinfer-artifact", 1, "cosine"
COUNTS = ("layers", "width", "dimension", "clusters", "passages", "tokens")
LARGEST = 1 << 40  # no honest count is larger
MOST_NEURONS, MOST_COORDINATES = 1 << 24, 1 << 26  # L * F and K * d: readers hold so many numbers at a time
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a name is printed: it must not command the terminal
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made the numbers.

    Attributes:
        id: the name it was loaded by.
        weights: ``models.fingerprint``.
        setup: hash of what else decides its numbers: tokenizer, configuration, an embedder's pooling.
        dtype: of the weights as they were loaded.
        max_tokens: its longest input.
    """

    id: str
    weights: str
    setup: str
    dtype: str
    max_tokens: int


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``: what the artifact was made from and with, and the size and sha256 of each of its files."""

    model: ModelIdentity
    embedder: ModelIdentity
    layers: int
    width: int
    dimension: int
    clusters: int
    passages: int
    tokens: int
    statistic: StatisticSettings
    default_keep: float
    seed: int
    config: dict[str, Any]
    files: dict[str, dict[str, Any]]

    def to_json(self) -> str:
        head = {"format": FORMAT, "version": VERSION, "metric": METRIC}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> "Manifest":
        """Parse and check every field; ``where`` is for messages.

        Raises:
            CoreInferError: no JSON, another format or version, or a field that no build writes, by name and value.
        """
        try:
            raw = _record("the manifest", strict_json.parse(text), None)
            made, version = raw.pop("format", None), raw.pop("version", None)
            if made == FORMAT and type(version) is int and version == VERSION:
                return cls._checked(raw)
        except (ValueError, OverflowError, RecursionError, CoreInferError) as error:
            raise CoreInferError(
                f"{where} is not a valid manifest ({in_words(error)}): rebuild the artifact"
            ) from error
        raise CoreInferError(
            f"{where} has format {_shown(made)} version {_shown(version)}, this coreinfer reads {FORMAT!r} version "
            f"{VERSION}: rebuild the artifact with build-clusters"
        )

    @classmethod
    def _checked(cls, raw: dict[str, Any]) -> "Manifest":
        if (metric := raw.pop("metric", None)) != METRIC:
            raise ValueError(f"metric is {_shown(metric)}, not {METRIC!r}")
        made = cls(**{name: CHECKS[name](name, value) for name, value in _record("the manifest", raw, cls).items()})
        for what, number, most in (
            ("layers of its width", made.layers * made.width, MOST_NEURONS),
            ("clusters of its dimension", made.clusters * made.dimension, MOST_COORDINATES),
        ):
            if number > most:
                raise ValueError(f"{what} are {number} numbers, more than {most}")
        return made


def _shown(value: object) -> str:
    """A value for a message: short, in one line."""
    return repr(value)[:80]


def _record(name: str, value: Any, kind: type | None) -> dict[str, Any]:
    """An object, with exactly the fields of a dataclass if one is given."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is {_shown(value)}, no object")
    wanted = {field.name for field in fields(kind)} if kind is not None else set(value)
    if odd := sorted(wanted ^ set(value)):
        fault = "lacks" if odd[0] in wanted else "has an unknown"
        raise ValueError(f"{name} {fault} {_shown(odd[0])}")
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str) or not value or CONTROL.search(value):
        raise ValueError(f"{name} is {_shown(value)}, no text")
    return value


def _whole(name: str, value: Any, least: int = 0) -> int:
    if type(value) is not int or not least <= value < LARGEST:  # a bool is an int too
        raise ValueError(f"{name} is {_shown(value)}, no whole number from {least} to {LARGEST - 1}")
    return value


def _count(name: str, value: Any) -> int:
    return _whole(name, value, 1)


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{name} is {_shown(value)}, no number")
    return float(value)


def _hash(name: str, value: Any) -> str:
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise ValueError(f"{name} is {_shown(value)}, not the 64 hexadecimal digits of a sha256")
    return value


def _keep(name: str, value: Any) -> float:
    return check_keep(_number(name, value))


def _config(name: str, value: Any) -> dict[str, Any]:
    return _record(name, value, None)


def _identity(name: str, value: Any) -> ModelIdentity:
    raw = _record(name, value, ModelIdentity)
    for part in ("id", "dtype"):
        _text(f"{name}.{part}", raw[part])
    for part in ("weights", "setup"):
        _hash(f"{name}.{part}", raw[part])
    _count(f"{name}.max_tokens", raw["max_tokens"])
    return ModelIdentity(**raw)


def _statistic(name: str, value: Any) -> StatisticSettings:
    raw = _record(name, value, StatisticSettings)
    for part in ("kind", "mode"):
        _text(f"{name}.{part}", raw[part])
    return StatisticSettings(**{**raw, "token_fraction": _number(f"{name}.token_fraction", raw["token_fraction"])})


def _files(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """File names that stay in the folder, and the size and sha256 of each."""
    for file, facts in _record(name, value, None).items():
        if Path(file).name != file or file == ".." or CONTROL.search(file):
            raise ValueError(f"{_shown(file)} is no file of the folder")
        if file == MANIFEST:
            raise ValueError(f"{MANIFEST} lists itself, and nothing can hold its own hash")
        if not isinstance(facts, dict) or set(facts) != {"bytes", "sha256"}:
            raise ValueError(f"{_shown(file)} has {_shown(facts)}, not bytes and sha256")
        _whole(f"bytes of {_shown(file)}", facts["bytes"])
        _hash(f"sha256 of {_shown(file)}", facts["sha256"])
    return dict(value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(COUNTS, _count), "model": _identity, "embedder": _identity, "statistic": _statistic,
    "default_keep": _keep, "seed": _whole, "config": _config, "files": _files,
}  # fmt: skip


def sha256_of(path: Path) -> str:
    """Hash a file in pieces; memory stays flat."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def describe(paths: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Size and sha256 by file name, for the manifest."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in paths}


def verify(root: Path) -> Manifest:
    """Check the manifest and the size and hash of every file; nothing else is parsed before this passed.

    Raises:
        CoreInferError: not an artifact, another version, or a missing or changed file, by name.
    """
    layout = Layout(Path(root))
    if not layout.manifest.is_file():
        raise CoreInferError(
            f"no artifact at {root} (no manifest.json there): make one with `coreinfer build-clusters`"
        )
    manifest = Manifest.from_json(_text_of(layout.manifest), layout.manifest)
    for path in layout.required:
        if path.name not in manifest.files:
            raise CoreInferError(f"{layout.manifest} does not list {path.name}: rebuild the artifact")
    if layout.index.exists() and layout.index.name not in manifest.files:
        raise CoreInferError(f"{layout.manifest} does not list {layout.index.name}: remove that file or rebuild")
    for name, facts in manifest.files.items():
        _verify_file(layout.root / name, facts)
    return manifest


def _text_of(path: Path) -> str:
    """A manifest's text, if it has a manifest's size and is UTF-8."""
    try:
        _check_own(path)
        return strict_json.text_of(path)
    except ValueError as error:
        raise CoreInferError(f"{path} is not a valid manifest ({in_words(error)}): rebuild the artifact") from error


def _verify_file(path: Path, facts: dict[str, Any]) -> None:
    if not os.path.lexists(path):
        if path.suffix == ".faiss":
            return  # derived from clusters.parquet: rebuilt in memory
        raise CoreInferError(f"{path} is missing: copy the artifact again or rebuild it")
    _check_own(path)
    if path.stat().st_size != facts["bytes"] or sha256_of(path) != facts["sha256"]:
        raise CoreInferError(f"{path} was changed after the build (its sha256 differs): copy it again or rebuild it")


def _check_own(path: Path) -> None:
    """Refuse what leads out of the folder, or never ends: a link, a device, a pipe, a folder."""
    if not stat.S_ISREG(path.lstat().st_mode):
        kind = "a link" if path.is_symlink() else "no plain file"
        raise CoreInferError(f"{path} is {kind}: copy the artifact again, with `cp -rL` if it holds links")
