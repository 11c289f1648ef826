"""The parsers of the manifest and the calibration, with structured changes: what they take, they take as it is."""

import copy as copies
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_artifacts import POLICY
from small_artifacts import whole as whole

from coreinfer import strict_json
from coreinfer.calibrated import check_curve, is_number, policy_of
from coreinfer.errors import CoreInferError
from coreinfer.manifest import COUNTS, Manifest
from coreinfer.paths import DEMO_CLUSTERS

FAULTS = (ValueError, LookupError, TypeError)
CURVE = [{"keep": 0.2, "rise": 0.3, "rise_high": 0.4}, {"keep": 0.5, "rise": 0.1, "rise_high": 0.2}]
ODD: list[Any] = [
    None, True, False, 0, -1, 1, 2, 1 << 31, 1 << 40, 1 << 63, 10**400, 0.0, -0.0, 1e-320, 1e308, 0.5, "", "0", "0.5",
    "a", "a" * 64, "..", "/", "manifest.json", "\x1b", "\x00", "é", [], {}, [[]], {"": {}}, [0.5], {"keep": 0.1},
]  # fmt: skip
scalars = st.sampled_from(ODD) | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
anything: st.SearchStrategy[Any] = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [*([at] if at else []), *(place for key, part in inside for place in places(part, (*at, key)))]


@st.composite
def changed(draw: st.DrawFn, good: Any) -> Any:
    """A value with one to three places replaced, removed, doubled, renamed, or exchanged with another."""
    out = copies.deepcopy(good)
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(out) or [("x",)]))
        inside = out
        for step in way:
            inside = inside[step]
        how = draw(st.sampled_from(["replace", "remove", "add", "rename", "lift"]))
        if how == "remove" or how == "rename":
            old = inside.pop(last) if not isinstance(inside, dict) or last in inside else None
            if how == "rename" and isinstance(inside, dict):
                inside[draw(st.text(max_size=6) | st.sampled_from(list(good)))] = old
        elif how == "add" and isinstance(inside, list):
            inside.insert(last, copies.deepcopy(draw(anything)))
        elif how == "lift" and (isinstance(inside, list) or last in inside):
            inside[last] = [inside[last]]
        else:
            inside[last] = copies.deepcopy(draw(anything))  # it may be changed again
    return out


def parsed(raw: Any) -> Any:
    return strict_json.parse(json.dumps(raw))


@given(st.data())
@settings(max_examples=400, deadline=None)
def test_a_manifest_is_taken_as_it_is_or_refused(whole: Path, data: st.DataObject) -> None:
    raw, said = data.draw(changed(json.loads((whole / "manifest.json").read_text("utf-8")))), ""
    try:
        made = Manifest.from_json(json.dumps(raw), Path("here"))
    except CoreInferError as error:
        said = str(error)
    if said:
        assert re.fullmatch(r"here .{,650}", said)  # one line: a dot is no line's end
        return
    assert json.loads(made.to_json()) == raw
    assert all(type(getattr(made, name)) is int and getattr(made, name) > 0 for name in COUNTS)
    assert all(Path(name).name == name and name != "manifest.json" for name in made.files)


@given(st.data())
@settings(max_examples=400, deadline=None)
@example(data=None)
def test_a_calibration_is_taken_as_it_is_or_refused(data: st.DataObject | None) -> None:
    good = {"policy": asdict(POLICY), "curve": CURVE, "held_out_passages": 3}
    raw: Any = good if data is None else data.draw(changed(good))
    try:
        found = parsed(raw)
        policy = policy_of(found)
        check_curve(found)
    except FAULTS:
        if data is None:
            raise
        return
    assert asdict(policy) == raw["policy"]
    assert all(is_number(getattr(policy, name)) for name in ("threshold", "strong", "sharpness", "n0", "doubt"))
    for similarity in (-1.0, 0.0, policy.threshold, policy.strong, 1.0):  # what matching does with it
        assert 0 <= policy.n0_at(similarity, 0.5, 10_000) <= policy.n0
        assert policy.usual(1) >= 0
    keeps = [row["keep"] for row in raw.get("curve", [])]
    assert keeps == sorted(keeps)


@given(anything)
@settings(max_examples=200, deadline=None)
def test_json_is_read_as_it_is_written(value: Any) -> None:
    assert parsed(value) == value


@given(st.binary() | st.text().map(str.encode))
def test_bytes_are_json_or_a_value_error(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    path.write_bytes(raw)
    try:
        json.loads(json.dumps(strict_json.read(path)))
    except ValueError:
        return


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('{"a": 1, "a": 1}', "twice"), ('[{"b": {"a": 1, "a": 2}}]', "twice"), ("[NaN]", "NaN"),
        ("-Infinity", "Infinity"),
        ("1e999", "too large"), ("[" * 40 + "]" * 40, "deeper"), ('"\\ud83d"', "surrogates"), ("", "Expecting"),
        ("[" + "0," * 100_000 + "0]", "100,000 values"), ("9" * 5000, "limit"),
    ],
)  # fmt: skip
def test_json_that_is_refused(text: str, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        strict_json.parse(text)


def test_the_shipped_files_are_taken() -> None:
    found = strict_json.read(DEMO_CLUSTERS / "calibration.json")
    check_curve(found)
    assert asdict(policy_of(found)) == found["policy"]
