"""What a build in a folder that machines share was asked for, kept in that folder: every machine must ask for the same,
and whoever merges need not say it again.
"""

import json
import os
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from coreinfer import strict_json
from coreinfer.errors import CoreInferError, in_words
from coreinfer.json_fields import record, shown, whole
from coreinfer.wording import flat, shortened
from pipeline.shards.sealed import begin
from pipeline.shards.store import MADE
from pipeline.shards.ways import Ways

if TYPE_CHECKING:
    from pipeline.settings import BuildSettings  # slow to import

NAME = "build.json"
Made = TypeVar("Made")
MAY_DIFFER = ("where", "settings.source.dataset")  # a machine may see the same data elsewhere; its hash is compared


@dataclass(frozen=True)
class Recorded:
    """The settings of a build, the size of its shards, and the folder ``where`` it was started: a dataset's relative
    name is relative to that.
    """

    settings: "BuildSettings"
    shard_passages: int
    where: Path

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        made = dict(zip(("format", "version"), MADE, strict=True))
        facts = {"shard_passages": self.shard_passages, "where": str(self.where), "settings": asdict(self.settings)}
        return dict(json.loads(json.dumps(made | facts)))

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Recorded":
        from pipeline.settings import BuildSettings

        settings = _made("settings", raw["settings"], BuildSettings)
        return cls(settings, whole("shard_passages", raw["shard_passages"], 1), Path(raw["where"]))


def _made(name: str, raw: Any, kind: type[Made]) -> Made:
    """A record of settings from an object, if each of its fields is of the right type."""
    hints = get_type_hints(kind)
    return kind(**{key: _field(f"{name}.{key}", it, hints[key]) for key, it in record(name, raw, None).items()})


def _field(name: str, value: Any, hint: Any) -> Any:
    parts = get_args(hint) or (hint,)  # of a union, types; of a Literal, its texts
    kinds = [part if isinstance(part, type) else type(part) for part in parts]
    inner = [kind for kind in kinds if is_dataclass(kind)]
    if inner and not (value is None and NoneType in kinds):
        return _made(name, value, inner[0])
    if type(value) not in kinds and not (type(value) is int and float in kinds):
        raise ValueError(f"{name} is {shown(value)}")
    return value


def record_settings(settings: "BuildSettings", ways: Ways) -> None:
    """Keep a build's settings in ``ways.work``, unless another machine did.

    Raises:
        CoreInferError: others are there; the first that differs is named.
        OSError: the disk refuses.
    """
    assert ways.work is not None, "a folder that machines share"
    mine = Recorded(settings, ways.size_on(settings.device), Path(os.getcwd())).plain()
    ways.work.mkdir(parents=True, exist_ok=True)
    begin(ways.work / NAME, [(json.dumps(mine, indent=1) + "\n").encode()])
    theirs = _read(ways.work)
    here, there = flat(mine), flat(theirs)
    for name in [*here, *there]:
        if name not in MAY_DIFFER and here.get(name) != there.get(name):
            raise CoreInferError(
                f"{ways.work} was begun with {name.removeprefix('settings.')} {_shown(there.get(name))}, here it is "
                f"{_shown(here.get(name))}: use the same settings everywhere, or name another --work"
            )


def check_recorded(folder: Path) -> None:
    """Refuse a folder in which no build was begun, or none that this version can read, before anything slow is done.

    Raises:
        CoreInferError: it is one.
    """
    _read(folder)


def recorded(folder: Path) -> Recorded:
    """What was kept there.

    Raises:
        CoreInferError: nothing that this version can read.
    """
    raw = _read(folder)
    try:
        return Recorded.of(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise _unusable(folder / NAME, f"is damaged ({in_words(error)})") from error


def _unusable(path: Path, why: str) -> CoreInferError:
    return CoreInferError(f"{path} {why}: remove it and run --pass record there again")


def _read(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        raw = strict_json.read(path)
    except FileNotFoundError as error:
        raise CoreInferError(
            f"{folder} holds no build: first run `coreinfer build-clusters DATASET --work {folder} --pass embed`, then "
            "--pass record, on all machines"
        ) from error
    except OSError as error:
        raise _unusable(path, f"cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise _unusable(path, f"cannot be read ({in_words(error)})") from error
    if not isinstance(raw, dict) or (raw.get("format"), raw.get("version")) != MADE:
        version = raw.get("version") if isinstance(raw, dict) else None
        raise CoreInferError(
            f"{folder} was begun by another version of coreinfer ({_shown(version)}, here {MADE[1]}): use one version "
            "everywhere, or name another folder"
        )
    return raw


def _shown(value: object) -> str:
    return shortened(repr(value), 60)
