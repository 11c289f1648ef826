"""What a stopped training leaves beside its output, and how the same command goes on from it. No pickles.

``.OUTPUT.adapt/`` holds ``settings.json``; ``topics.safetensors``, made once; and ``step-N/`` with
``state.safetensors`` and ``state.json``. A step's folder gets its name when it is complete, and only then do older
ones go.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from coreinfer.errors import CoreInferError, in_words
from coreinfer.places import moved_in

STATE, TOPICS, SETTINGS = "state.safetensors", "topics.safetensors", "settings.json"


@dataclass(frozen=True)
class Checkpoint:
    """Where a training stood: steps done, its tensors by name, the reports so far."""

    step: int
    tensors: dict[str, Tensor]
    reports: list[dict[str, Any]]


class Checkpoints:
    """The checkpoints of the training that will make ``output``."""

    def __init__(self, output: Path) -> None:
        self.folder = output.parent / f".{output.name}.adapt"

    def open(self, settings: dict[str, Any]) -> None:
        """Begin, or go on with what lies there.

        Raises:
            CoreInferError: another training was stopped there; the first difference is named.
        """
        place, wanted = self.folder / SETTINGS, json.loads(json.dumps(settings, default=str))
        if not place.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            place.write_text(json.dumps(wanted, indent=1), "utf-8")
            return
        found = self._json(place)
        if different := [name for name in (*wanted, *found) if wanted.get(name) != found.get(name)]:
            name = different[0]
            raise CoreInferError(
                f"the training that stopped in {self.folder} has {name} {found.get(name)!r}, this one has "
                f"{wanted.get(name)!r}: give the same to go on, or remove that folder to begin anew"
            )

    def topics(self) -> dict[str, Tensor] | None:
        """What ``save_topics`` stored, if it did."""
        place = self.folder / TOPICS
        return self._tensors(place, "cpu") if place.exists() else None

    def save_topics(self, tensors: dict[str, Tensor]) -> None:
        """Embedding a corpus takes long, and need not be repeated."""
        with moved_in(self.folder / TOPICS) as part:
            _write(tensors, part)

    def last(self, device: str) -> Checkpoint | None:
        """The latest one, if there is any."""
        steps = self._steps()
        if not steps:
            return None
        place = self._at(max(steps))
        raw = self._json(place / "state.json")
        return Checkpoint(int(raw["step"]), self._tensors(place / STATE, device), list(raw["reports"]))

    def save(self, made: Checkpoint) -> None:
        """Write one whole, then forget the others."""
        part, older = self.folder / "writing", self._steps()
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        _write(made.tensors, part / STATE)
        (part / "state.json").write_text(json.dumps({"step": made.step, "reports": made.reports}), "utf-8")
        part.rename(self._at(made.step))
        for step in older:
            shutil.rmtree(self._at(step))

    def remove(self) -> None:
        """The output is there: nothing is left to go on with."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _at(self, step: int) -> Path:
        return self.folder / f"step-{step}"

    def _steps(self) -> list[int]:
        return [int(path.name.removeprefix("step-")) for path in self.folder.glob("step-*")]

    def _json(self, place: Path) -> dict[str, Any]:
        try:
            raw = json.loads(place.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise self._damaged(place, error) from error
        return dict(raw)

    def _tensors(self, place: Path, device: str) -> dict[str, Tensor]:
        try:
            return load_file(place, device)
        except (OSError, SafetensorError) as error:
            raise self._damaged(place, error) from error

    def _damaged(self, place: Path, error: Exception) -> CoreInferError:
        return CoreInferError(f"cannot read {place}: {in_words(error)}; remove {self.folder} to begin anew")


def _write(tensors: dict[str, Tensor], place: Path) -> None:
    save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, place)
