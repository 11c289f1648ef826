"""A model's safetensors files, read in pieces: nothing is mapped, and no more is in memory than what is asked for."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
from transformers.utils.hub import cached_file, get_checkpoint_shard_files

FLOATS = ("F64", "F32", "F16", "BF16")
PIECE = 1 << 24  # elements that are read at a time


class Checkpoint:
    """The tensors in a folder's, or a Hub model's, safetensors files.

    Raises:
        OSError: there are none.
    """

    def __init__(self, where: str) -> None:
        self.files = _files(where)
        opened: list[Any] = [safe_open(file, framework="pt", backend="pread") for file in self.files]
        self._file: dict[str, Any] = {key: file for file in opened for key in file.keys()}  # noqa: SIM118

    @property
    def keys(self) -> list[str]:
        return sorted(self._file)

    def key_of(self, name: str) -> str:
        """Under which key a model's weight lies: its name, or with another model's name before it or without its own.

        Raises:
            ValueError: there is no such key, or several.
        """
        found = [key for key in self._file if key == name or key.endswith(f".{name}") or name.endswith(f".{key}")]
        if len(found) != 1:
            raise ValueError(f"it holds {len(found)} tensors that could be {name}")
        return found[0]

    def shape(self, key: str) -> tuple[int, ...]:
        return tuple(self._file[key].get_slice(key).get_shape())

    def read(self, key: str, dtype: torch.dtype) -> Tensor:
        """The tensor, one of floats in that dtype; what it had in the file is there a piece at a time."""
        some, shape = self._file[key].get_slice(key), self.shape(key)
        if not shape or some.get_dtype() not in FLOATS:
            return torch.as_tensor(self._file[key].get_tensor(key))
        out = torch.empty(shape, dtype=dtype)
        step = max(1, PIECE * shape[0] // max(1, out.numel()))
        for at in range(0, shape[0], step):
            end = min(at + step, shape[0])  # a slice beyond the end is an error here
            out[at:end] = some[at:end]
        return out

    def facts(self) -> list[list[Any]]:
        """What tells a changed file: its name, size and time of change."""
        stats = [(file, file.stat()) for file in self.files]
        return [[file.name, stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _files(where: str) -> list[Path]:
    """One file, or the shards that an index names; a Hub model's from the cache, or loaded into it."""
    one = cached_file(where, SAFE_WEIGHTS_NAME, _raise_exceptions_for_missing_entries=False)
    if one is not None:
        return [Path(one)]
    index = cached_file(where, SAFE_WEIGHTS_INDEX_NAME, _raise_exceptions_for_missing_entries=False)
    if index is None:
        raise OSError(f"no file named {SAFE_WEIGHTS_NAME} or {SAFE_WEIGHTS_INDEX_NAME} there")
    shards, _ = get_checkpoint_shard_files(where, index)  # type: ignore[no-untyped-call]
    return [Path(shard) for shard in shards]
