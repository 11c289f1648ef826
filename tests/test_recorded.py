"""What a folder that machines share was begun with: read back as it was, or refused in one line."""

import json
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

from coreinfer import CoreInferError
from coreinfer.settings import StatisticSettings
from pipeline.merge import merge
from pipeline.recorded import record_settings, recorded
from pipeline.settings import BuildSettings
from pipeline.shards.store import VERSION
from pipeline.shards.ways import Ways
from pipeline.sources import SourceSettings

SETTINGS = BuildSettings(SourceSettings("here.jsonl"), "some/llama", clusters=4, statistic=StatisticSettings())
ODD = [
    (("source", "dataset"), 5, "settings.source.dataset is 5"), (("source",), [], r"settings.source is \[\]"),
    (("statistic", "kind"), 1, "settings.statistic.kind is 1"), (("keep",), "0.4", "settings.keep is '0.4'"),
    (("calibrate",), 1, "settings.calibrate is 1"), (("clusters",), True, "settings.clusters is True"),
    (("unknown",), 1, "unknown"),
]  # fmt: skip


def changed(raw: dict[str, Any], keys: tuple[str, ...], value: object) -> str:
    """``build.json`` with another value in one place of its settings."""
    made = json.loads(json.dumps(raw))
    reduce(dict.__getitem__, keys[:-1], made["settings"])[keys[-1]] = value
    return json.dumps(made)


def test_what_a_folder_was_begun_with_is_kept(tmp_path: Path) -> None:
    """It is read back as it was; whoever asks for something else, or comes with another version, is refused."""
    settings, work = SETTINGS, tmp_path / "work"
    with pytest.raises(CoreInferError, match=r"work holds no build: first run `coreinfer build-clusters DATASET"):
        merge(work, tmp_path / "made")
    record_settings(settings, Ways(work=work))
    record_settings(replace(settings, source=replace(settings.source, dataset="elsewhere.jsonl")), Ways(work=work))
    assert recorded(work).settings == settings
    for other, ways, words in (
        (replace(settings, keep=0.3), Ways(work=work), r"begun with keep 0.4, here it is 0.3: use the same settings"),
        (replace(settings, model="gpt2"), Ways(work=work), r"begun with model '.*llama', here it is 'gpt2'"),
        (settings, Ways(work=work, shard_passages=1024), "begun with shard_passages 512, here it is 1024"),
    ):
        with pytest.raises(CoreInferError, match=words):
            record_settings(other, ways)
    place = work / "build.json"
    raw = json.loads(place.read_text("utf-8"))
    for damaged, words in (
        (
            json.dumps(raw | {"version": 99}),
            rf"another version of coreinfer \(99, here {VERSION}\): use one version everywhere",
        ),
        (json.dumps({name: raw[name] for name in ("format", "version")}), "build.json is damaged"),
        *((changed(raw, keys, value), f"build.json is damaged .*{words}.*: remove it") for keys, value, words in ODD),
        ("{", "build.json cannot be read"),
        ("[" * 100_000, r"build.json cannot be read \(.*\): remove it and run --pass record there again"),
        ('{"a": ' * 99 + "1" + "}" * 99, r"build.json cannot be read \(it holds deeper than 32 levels\)"),
    ):
        place.write_text(damaged, "utf-8")
        with pytest.raises(CoreInferError, match=words):
            merge(work, tmp_path / "made")
