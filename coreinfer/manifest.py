"""The manifest of an artifact: every file by name, size and sha256, checked before any parser sees a byte of it.

``artifacts/FORMAT.md`` is the language-neutral specification.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.settings import StatisticSettings

FORMAT, VERSION = "coreinfer-artifact", 1
COUNTS = ("layers", "width", "dimension", "clusters", "passages", "tokens")
LARGEST = 1 << 40  # no honest count is larger


@dataclass(frozen=True)
class Layout:
    """Every file name, once."""

    root: Path

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def clusters(self) -> Path:
        return self.root / "clusters.parquet"

    @property
    def neurons(self) -> Path:
        return self.root / "neurons.parquet"

    @property
    def layers(self) -> Path:
        return self.root / "layers.parquet"

    @property
    def index(self) -> Path:
        return self.root / "index.faiss"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def required(self) -> tuple[Path, ...]:
        return (self.clusters, self.neurons, self.layers, self.calibration)


@dataclass(frozen=True)
class ModelIdentity:
    """Which model made the numbers: the name it was loaded by, its ``models.fingerprint``, dtype and longest input."""

    id: str
    weights: str
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
        head = {"format": FORMAT, "version": VERSION, "metric": "cosine"}
        return json.dumps({**head, **asdict(self)}, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str, where: Path) -> "Manifest":
        try:
            raw = json.loads(text)
            if raw["format"] != FORMAT or raw["version"] != VERSION:
                raise CoreInferError(
                    f"{where} has format {raw['format']!r} version {raw['version']!r}, this coreinfer reads {FORMAT!r} "
                    f"version {VERSION}: rebuild the artifact with build-clusters"
                )
            known = {k: v for k, v in raw.items() if k not in ("format", "version", "metric")}
            known["model"], known["embedder"] = ModelIdentity(**raw["model"]), ModelIdentity(**raw["embedder"])
            made = cls(**{**known, "statistic": StatisticSettings(**raw["statistic"])})
            made._check()
            return made
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CoreInferError(f"{where} is not a valid manifest ({error!r}): rebuild the artifact") from error

    def _check(self) -> None:
        """Refuse what no build writes: counts that are none, files outside the folder."""
        for name in COUNTS:
            count = getattr(self, name)
            if not isinstance(count, int) or not 0 < count < LARGEST:
                raise ValueError(f"{name} is {count!r}")
        for name, facts in self.files.items():
            if Path(name).name != name:
                raise ValueError(f"{name!r} is no file of the folder")
            if not isinstance(facts, dict):
                raise ValueError(f"{name} has no size and sha256")


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
    manifest = Manifest.from_json(layout.manifest.read_text("utf-8", errors="replace"), layout.manifest)
    for path in layout.required:
        if path.name not in manifest.files:
            raise CoreInferError(f"{layout.manifest} does not list {path.name}: rebuild the artifact")
    for name, facts in manifest.files.items():
        _verify_file(layout.root / name, facts)
    return manifest


def _verify_file(path: Path, facts: dict[str, Any]) -> None:
    if not path.is_file():
        if path.suffix == ".faiss":
            return  # derived from clusters.parquet: rebuilt in memory
        raise CoreInferError(f"{path} is missing: copy the artifact again or rebuild it")
    if path.stat().st_size != facts.get("bytes") or sha256_of(path) != facts.get("sha256"):
        raise CoreInferError(f"{path} was changed after the build (its sha256 differs): copy it again or rebuild it")
