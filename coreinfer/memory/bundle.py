"""A model's neurons in a folder, one safetensors file a layer: (F, P, H), each neuron's parts side by side.

It is made from the model's checkpoint once, layer by layer, in a temporary folder beside its place, which it takes
when all of it is on the disk. Its manifest names the checkpoint's files, as they were, and the size and sha256 of each
layer's file. A folder that is cut, or of another checkpoint, is made anew.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from coreinfer.caching import is_abandoned, remove
from coreinfer.errors import CoreInferError
from coreinfer.memory.checkpoint import Checkpoint
from coreinfer.memory.sizes import size_in_words
from coreinfer.places import check_place, folder_moved_in, writing

FORMAT, VERSION = "coreinfer-bundle", 1
MANIFEST, TENSOR = "manifest.json", "neurons"
REMEDY = "choose another --bundles"


@dataclass(frozen=True)
class Shape:
    """A bundle's layers, neurons of each, parts of a neuron, hidden size, and the name of their dtype."""

    layers: int
    width: int
    parts: int
    hidden: int
    dtype: str

    @property
    def layer_bytes(self) -> int:
        return self.width * self.parts * self.hidden * self.torch_dtype.itemsize

    @property
    def torch_dtype(self) -> torch.dtype:
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def place_of(folder: Path, model: str, dtype: str) -> Path:
    """A model's bundle in the folder of all; ``model`` is a Hub name or an absolute path."""
    return folder / f"{Path(model).name}-{hashlib.sha256(f'{model} {dtype}'.encode()).hexdigest()[:12]}"


def layer_file(place: Path, number: int) -> Path:
    return place / f"layer-{number:03}.safetensors"


def ready(place: Path, shape: Shape, checkpoint: Checkpoint) -> bool:
    """Whether the bundle of this checkpoint lies there, whole by its sizes.

    Raises:
        CoreInferError: something else lies there.
    """
    try:
        manifest = json.loads((place / MANIFEST).read_text("utf-8"))
        own = manifest["format"] == FORMAT
        files = manifest["files"]
        sizes = [layer_file(place, number).stat().st_size for number in range(shape.layers)]
        same = own and manifest | {"files": 0} == _head(shape, checkpoint) and [f["size"] for f in files] == sizes
    except (OSError, ValueError, LookupError, TypeError):
        own, same = False, False
    if not own and place.exists() and (not place.is_dir() or any(_foreign(place))):
        raise CoreInferError(f"{place} is no bundle, so it is not overwritten: move that away, or {REMEDY}")
    return bool(same)


def _foreign(place: Path) -> Iterator[Path]:
    """What is in a folder and no part of a bundle."""
    return (path for path in place.iterdir() if path.name != MANIFEST and not path.match("layer-*.safetensors"))


def _head(shape: Shape, checkpoint: Checkpoint) -> dict[str, Any]:
    """The manifest without the layers' files."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(shape)))
    return {"format": FORMAT, "version": VERSION, "checkpoint": checkpoint.facts(), "files": 0, **plain}


def write(
    place: Path, shape: Shape, checkpoint: Checkpoint, weights: Sequence[Sequence[str]], tick: Callable[[int], Any]
) -> None:
    """The bundle of a checkpoint whose layers' weights, inputs and then output, have these names.

    Raises:
        CoreInferError: the disk refuses.
        ValueError: the checkpoint's tensors have other shapes.
    """
    check_place(place, REMEDY)
    _check_room(place, shape.layers * shape.layer_bytes)
    _remove_abandoned(place)
    with writing(place, REMEDY), folder_moved_in(place) as (part, _):
        files = []
        for number, names in enumerate(weights):
            files.append(_write_layer(layer_file(part, number), neurons_of(shape, checkpoint, names)))
            tick(1)
        (part / MANIFEST).write_text(json.dumps(_head(shape, checkpoint) | {"files": files}, indent=1) + "\n", "utf-8")


def _check_room(place: Path, size: int) -> None:
    there = next(folder for folder in place.absolute().parents if folder.exists())
    if size > (free := shutil.disk_usage(there).free):
        raise CoreInferError(
            f"the neurons take {size_in_words(size)} in {place}, and {size_in_words(free)} are free there: free some "
            f"space or {REMEDY}"
        )


def _write_layer(file: Path, neurons: Tensor) -> dict[str, Any]:
    """What the manifest says of a layer's file."""
    try:
        save_file({TENSOR: neurons}, file)
    except SafetensorError as error:  # it hides the system's own
        raise OSError(str(error)) from error
    raw: Any = neurons.view(torch.uint8).numpy()
    return {"size": file.stat().st_size, "sha256": hashlib.sha256(raw).hexdigest()}


def neurons_of(shape: Shape, checkpoint: Checkpoint, names: Sequence[str]) -> Tensor:
    """A layer's (F, P, H), put together from one weight at a time."""
    whole, part = torch.empty(shape.width, shape.parts, shape.hidden, dtype=shape.torch_dtype), 0
    for name in names:
        weight = checkpoint.read(checkpoint.key_of(name), shape.torch_dtype)
        rows = (weight.T,) if name == names[-1] else torch.split(weight, shape.width)  # gate and up may be one matrix
        for row in rows:
            if part == shape.parts or row.shape != (shape.width, shape.hidden):
                raise ValueError(f"{name} has the shape {tuple(weight.shape)}, which is not the config's")
            whole[:, part] = row
            part += 1
    return whole


def _remove_abandoned(place: Path) -> None:
    """What processes left that were killed while they wrote this bundle."""
    for left in place.parent.glob(f".{place.name}.*.part"):
        if is_abandoned(left):
            remove(left)


def hashes(place: Path) -> list[str]:
    """The sha256 of each layer's neurons, as the manifest of a ready bundle has it."""
    return [str(file["sha256"]) for file in json.loads((place / MANIFEST).read_text("utf-8"))["files"]]
