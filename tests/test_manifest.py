"""The manifest: every field is checked, and no JSON whatever gives anything but a manifest or one line."""

import copy as copies
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_artifacts import Change, put, refused, rewrite_manifest
from small_artifacts import copy as copy
from small_artifacts import whole as whole

from coreinfer.errors import CoreInferError
from coreinfer.manifest import Manifest
from coreinfer.paths import DEMO_CLUSTERS
from coreinfer.verified import verify

CHANGES: list[tuple[Change, str]] = [
    (put("version", value=2), "version 2"), (put("version", value=True), "version True"),
    (put("format", value="other"), "other"), (put("metric", value="dot"), "metric is 'dot'"),
    (put("extra", value=1), "unknown 'extra'"), (lambda m: m.pop("width"), "lacks 'width'"),
    (lambda m: m["files"].pop("neurons.parquet"), "neurons.parquet"), (put("files", value=[1]), "files is [1]"),
    (put("default_keep", value="x"), "default_keep is 'x'"), (put("default_keep", value=True), "default_keep is True"),
    (put("default_keep", value=7), "keep is 7"), (put("default_keep", value=10**400), "manifest"),
    (put("seed", value=1.5), "seed is 1.5"), (put("config", value=None), "config is None"),
    *((put(model, "id", value=5), f"{model}.id is 5") for model in ("model", "embedder")),
    (put("model", value="demo"), "model is 'demo'"), (put("model", "weights", value="a" * 63), "64 hexadecimal"),
    (put("model", "weights", value="A" * 64), "64 hexadecimal"),
    (put("model", "max_tokens", value=0), "max_tokens is 0"),
    (put("model", "dtype", value=None), "model.dtype is None"),
    (put("model", "extra", value=1), "model has an unknown"),
    (put("statistic", value={"kind": "median"}), "lacks 'mode'"), (put("statistic", "kind", value="median"), "median"),
    (put("statistic", "kind", value=["energy"]), "statistic.kind"),
    (put("statistic", "token_fraction", value="x"), "'x'"),
    *((put("files", name, value={"bytes": 1, "sha256": "0" * 64}), "outside")
      for name in ("../outside", "/outside", "a/../outside", "outside", "outside" * 50, "outside\0")),
    (put("files", "..", value={"bytes": 1, "sha256": "0" * 64}), "'..'"),
    (put("files", "neurons.parquet", value=None), "neurons.parquet"),
    (put("files", "neurons.parquet", value={"bytes": 1}), "not bytes and sha256"),
    (put("files", "neurons.parquet", "bytes", value="1"), "bytes of 'neurons.parquet' is '1'"),
    (put("files", "neurons.parquet", "sha256", value=1), "sha256 of 'neurons.parquet' is 1"),
    *((put(name, value=n), name) for name in ("clusters", "layers") for n in ("many", 0, -1, 2.0, True, None, 1 << 40)),
    *((put(name, value=n), "") for name in ("clusters", "dimension", "layers", "width") for n in (7, 10**9)),
]  # fmt: skip


@pytest.mark.parametrize(("change", "word"), CHANGES)
def test_a_manifest_that_does_not_fit(copy: Path, change: Change, word: str) -> None:
    rewrite_manifest(copy, change)
    refused(copy, word, "rebuild" if word != "outside" else "outside")


Steps = tuple[str | int, ...]
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([10**400, "a" * 64, 1 << 40]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, at: Steps = ()) -> list[Steps]:
    """The way to every value in a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [at, *(place for key, part in inside for place in places(part, (*at, key)))]


def mutated(raw: Any, at: Steps, how: str, value: Any, name: str) -> Any:
    """``raw`` with the value at a place replaced, removed or put under another name."""
    if not at:
        return value
    out = copies.deepcopy(raw)
    place = out
    for step in at[:-1]:
        place = place[step]
    old = place.pop(at[-1])
    if how == "replace":
        place[at[-1]] = value
    elif how == "rename":
        place[name] = old
    return out


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_any_change_gives_a_manifest_or_one_line(whole: Path, data: st.DataObject) -> None:
    good = json.loads((whole / "manifest.json").read_text("utf-8"))
    at = data.draw(st.sampled_from(places(good)))
    how = data.draw(st.sampled_from(["replace", "remove", "rename"]))
    text = json.dumps(mutated(good, at, how, data.draw(anything), data.draw(st.text())))
    said = ""
    try:
        made = Manifest.from_json(text, Path("here"))
    except CoreInferError as error:
        said = str(error)
    if said:
        assert re.fullmatch(r"here .* rebuild the artifact.*", said)  # one line: a dot is no line's end
    else:
        assert Manifest.from_json(made.to_json(), Path("again")) == made


@given(st.text() | st.binary().map(lambda raw: raw.decode("utf-8", "replace")))
def test_no_json_is_one_line(text: str) -> None:
    with pytest.raises(CoreInferError, match=r"^here .*rebuild"):
        Manifest.from_json(text, Path("here"))


def test_the_shipped_manifest_reads_back() -> None:
    made = verify(DEMO_CLUSTERS).manifest
    assert Manifest.from_json(made.to_json(), DEMO_CLUSTERS) == made
