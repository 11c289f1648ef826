"""The manifest of an artifact: what it was made from and with, and every file by name, size and sha256.

``artifacts/FORMAT.md`` is the language-neutral specification.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from coreinfer import strict_json
from coreinfer.errors import CoreInferError, in_words
from coreinfer.json_fields import CONTROL, count, hash_of, number, record, shown, text, whole
from coreinfer.layout import Layout
from coreinfer.settings import StatisticSettings, check_keep

MANIFEST = Layout(Path()).manifest.name
FORMAT, VERSION, METRIC = "coreinfer-artifact", 1, "cosine"
COUNTS = ("layers", "width", "dimension", "clusters", "passages", "tokens")
MOST_NEURONS, MOST_COORDINATES = 1 << 24, 1 << 26  # L * F and K * d: readers hold so many numbers at a time


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
            raw = record("the manifest", strict_json.parse(text), None)
            made, version = raw.pop("format", None), raw.pop("version", None)
            if made == FORMAT and type(version) is int and version == VERSION:
                return cls._checked(raw)
        except (ValueError, OverflowError, RecursionError, CoreInferError) as error:
            raise CoreInferError(
                f"{where} is not a valid manifest ({in_words(error)}): rebuild the artifact"
            ) from error
        raise CoreInferError(
            f"{where} has format {shown(made)} version {shown(version)}, this coreinfer reads {FORMAT!r} version "
            f"{VERSION}: rebuild the artifact with build-clusters"
        )

    @classmethod
    def _checked(cls, raw: dict[str, Any]) -> "Manifest":
        if (metric := raw.pop("metric", None)) != METRIC:
            raise ValueError(f"metric is {shown(metric)}, not {METRIC!r}")
        made = cls(**{name: CHECKS[name](name, value) for name, value in record("the manifest", raw, cls).items()})
        for what, numbers, most in (
            ("layers of its width", made.layers * made.width, MOST_NEURONS),
            ("clusters of its dimension", made.clusters * made.dimension, MOST_COORDINATES),
        ):
            if numbers > most:
                raise ValueError(f"{what} are {numbers} numbers, more than {most}")
        return made


def _keep(name: str, value: Any) -> float:
    return check_keep(number(name, value))


def _config(name: str, value: Any) -> dict[str, Any]:
    return record(name, value, None)


def _identity(name: str, value: Any) -> ModelIdentity:
    raw = record(name, value, ModelIdentity)
    for part in ("id", "dtype"):
        text(f"{name}.{part}", raw[part])
    for part in ("weights", "setup"):
        hash_of(f"{name}.{part}", raw[part])
    count(f"{name}.max_tokens", raw["max_tokens"])
    return ModelIdentity(**raw)


def _statistic(name: str, value: Any) -> StatisticSettings:
    raw = record(name, value, StatisticSettings)
    for part in ("kind", "mode"):
        text(f"{name}.{part}", raw[part])
    return StatisticSettings(**{**raw, "token_fraction": number(f"{name}.token_fraction", raw["token_fraction"])})


def _files(name: str, value: Any) -> dict[str, dict[str, Any]]:
    """File names that stay in the folder, and the size and sha256 of each."""
    for file, facts in record(name, value, None).items():
        if Path(file).name != file or file == ".." or CONTROL.search(file):
            raise ValueError(f"{shown(file)} is no file of the folder")
        if file == MANIFEST:
            raise ValueError(f"{MANIFEST} lists itself, and nothing can hold its own hash")
        if not isinstance(facts, dict) or set(facts) != {"bytes", "sha256"}:
            raise ValueError(f"{shown(file)} has {shown(facts)}, not bytes and sha256")
        whole(f"bytes of {shown(file)}", facts["bytes"])
        hash_of(f"sha256 of {shown(file)}", facts["sha256"])
    return dict(value)


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(COUNTS, count), "model": _identity, "embedder": _identity, "statistic": _statistic,
    "default_keep": _keep, "seed": whole, "config": _config, "files": _files,
}  # fmt: skip


def sha256_of(path: Path) -> str:
    """Hash a file in pieces; memory stays flat."""
    with path.open("rb") as file:
        return hashed(file)


def hashed(file: BinaryIO) -> str:
    """The sha256 of what follows in an open file."""
    digest = hashlib.sha256()
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def describe(paths: tuple[Path, ...]) -> dict[str, dict[str, Any]]:
    """Size and sha256 by file name, for the manifest."""
    return {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in paths}
