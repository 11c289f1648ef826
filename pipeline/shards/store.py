"""A folder that holds one stage's parts, all of one key: what they were made from and with, fact by fact."""

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from platform import node
from typing import Any

from coreinfer import strict_json
from coreinfer.caching import is_abandoned, remove
from coreinfer.errors import CoreInferError
from coreinfer.wording import flat
from pipeline.shards.sealed import begin, unreadable

# Raised with each change of the arithmetic: what was made before is other numbers, and is made again.
MADE = FORMAT, VERSION = "coreinfer-build", 2
Facts = dict[str, Any]


def key_of(facts: Facts) -> str:
    """A hash of everything that decides the numbers of a stage."""
    return hashlib.sha256(json.dumps([VERSION, facts], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """An open folder: every file in it is sealed with ``key``."""

    folder: Path
    key: str

    def at(self, name: str) -> Path:
        return self.folder / name

    def plain(self) -> list[str]:
        """As JSON has it."""
        return [str(self.folder.absolute()), self.key]

    @classmethod
    def of(cls, raw: list[str]) -> "Store":
        return cls(Path(raw[0]), raw[1])


def open_store(folder: Path, facts: Facts, say: Callable[[str], Any], shared: bool, alone: bool = False) -> Store:
    """Open a folder, or begin it. One of another format version is begun anew, unless others may have begun it with
    other facts (``shared``). What a killed process left half-written goes at once if nobody else writes (``alone``).

    Raises:
        CoreInferError: parts with other facts lie there; the first that differs is named.
        OSError: the place cannot be read or written.
    """
    place, wanted = folder / "key.json", json.loads(json.dumps(facts))
    damaged, found = place.exists(), _read(place)
    if found is not None and shared:
        _check_version(folder, found)
        _check_same(folder, found.get("facts"), wanted)
    elif found is not None and (found.get("format"), found.get("version"), found.get("facts")) != (*MADE, wanted):
        say(f"{folder} is of another version of coreinfer, or damaged, and is begun anew")
        shutil.rmtree(folder)
        found = None
    if found is None:
        folder.mkdir(parents=True, exist_ok=True)
        if not shared and damaged:
            place.unlink(missing_ok=True)
        text = json.dumps({"format": FORMAT, "version": VERSION, "facts": wanted}, indent=1) + "\n"
        begin(place, [text.encode()])
        _check_same(folder, (_read(place) or {}).get("facts"), wanted)  # another machine may have begun it first
    place.touch()  # used now: what was used longest ago leaves a full cache first
    for part in folder.glob(".*.part"):
        if alone or is_abandoned(part):
            remove(part)
    return Store(folder, key_of(facts))


def facts_of(store: Store) -> Facts:
    """What an open store's parts are made from and with.

    Raises:
        CoreInferError: it is not there, or not the one that was opened.
    """
    facts = begun_with(store.folder)
    if facts is None or key_of(facts) != store.key:
        raise CoreInferError(f"{node()} does not see {store.folder} as it was opened: run it again")
    return facts


def begun_with(folder: Path) -> Facts | None:
    """What a folder's parts are made from and with; None where nothing there says so.

    Raises:
        CoreInferError: it cannot be read.
    """
    facts = (_read(folder / "key.json") or {}).get("facts")
    return facts if isinstance(facts, dict) else None


def _check_version(folder: Path, found: dict[str, Any]) -> None:
    if (found.get("format"), found.get("version")) != MADE:
        raise CoreInferError(
            f"{folder} was begun by another version of coreinfer ({_shown(found.get('version'))}, here {VERSION}): use "
            "one version everywhere, or name another --work"
        )


def _read(place: Path) -> dict[str, Any] | None:
    """None where nothing is, or nothing of ours; what a killed process left is no JSON and counts as nothing."""
    try:
        raw = strict_json.read(place)
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    except OSError as error:
        raise unreadable(place, error) from error
    return raw if isinstance(raw, dict) else None


def _check_same(folder: Path, found: Any, wanted: Facts) -> None:
    mine, theirs = flat(wanted), flat(found if isinstance(found, dict) else {})
    for name in [*mine, *theirs]:
        if mine.get(name) != theirs.get(name):
            same = "the same corpus, settings and versions everywhere"
            remedy = f"OMP_NUM_THREADS={theirs.get(name)}" if name == "threads" else same
            raise CoreInferError(
                f"{folder} holds parts made with {name} {_shown(theirs.get(name))}, here it is "
                f"{_shown(mine.get(name))}: use {remedy}, or name another --work"
            )


def _shown(value: object) -> str:
    return repr(value)[:40]
