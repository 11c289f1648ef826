"""What a build in a folder that machines share was asked for, kept in that folder: every machine must ask for the same,
and whoever merges need not say it again.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coreinfer.errors import CoreInferError
from coreinfer.settings import StatisticSettings
from coreinfer.wording import flat, shortened
from pipeline.settings import BuildSettings
from pipeline.shards.sealed import begin
from pipeline.shards.store import MADE
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

NAME = "build.json"
MAY_DIFFER = ("where", "settings.source.dataset")  # a machine may see the same data elsewhere; its hash is compared


@dataclass(frozen=True)
class Recorded:
    """The settings of a build, the size of its shards, and the folder ``where`` it was started: a dataset's relative
    name is relative to that.
    """

    settings: BuildSettings
    shard_passages: int
    where: Path

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        made = dict(zip(("format", "version"), MADE, strict=True))
        facts = {"shard_passages": self.shard_passages, "where": str(self.where), "settings": asdict(self.settings)}
        return dict(json.loads(json.dumps(made | facts)))

    @classmethod
    def of(cls, raw: dict[str, Any]) -> "Recorded":
        made = dict(raw["settings"])
        made["source"] = SourceSettings(**made["source"])
        made["statistic"] = made["statistic"] and StatisticSettings(**made["statistic"])
        return cls(BuildSettings(**made), int(raw["shard_passages"]), Path(raw["where"]))


def record_settings(settings: BuildSettings, ways: Ways) -> None:
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


def recorded(folder: Path) -> Recorded:
    """What was kept there.

    Raises:
        CoreInferError: nothing that this version can read.
    """
    raw = _read(folder)
    try:
        return Recorded.of(raw)
    except (KeyError, TypeError, ValueError) as error:
        raise CoreInferError(f"{folder / NAME} is damaged ({error}): run --pass record there again") from error


def _read(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise CoreInferError(
            f"{folder} holds no build: first run `coreinfer build-clusters DATASET --work {folder} --pass embed`, then "
            "--pass record, on all machines"
        ) from error
    except (OSError, ValueError) as error:
        raise CoreInferError(f"{path} cannot be read ({error}): remove it and run --pass record there again") from error
    if not isinstance(raw, dict) or (raw.get("format"), raw.get("version")) != MADE:
        version = raw.get("version") if isinstance(raw, dict) else None
        raise CoreInferError(
            f"{folder} was begun by another version of coreinfer ({_shown(version)}, here {MADE[1]}): use one version "
            "everywhere, or name another folder"
        )
    return raw


def _shown(value: object) -> str:
    return shortened(repr(value), 60)
