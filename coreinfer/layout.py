"""Where each file of an artifact lies."""

from dataclasses import dataclass
from pathlib import Path


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
    def sensitivity(self) -> Path:
        return self.root / "sensitivity.parquet"

    @property
    def index(self) -> Path:
        return self.root / "index.faiss"

    @property
    def calibration(self) -> Path:
        return self.root / "calibration.json"

    @property
    def required(self) -> tuple[Path, ...]:
        return (self.clusters, self.neurons, self.layers, self.sensitivity, self.calibration)
