"""``coreinfer report``: one file that needs no network, figures, hostile texts, and what is refused."""

import base64
import hashlib
import json
import re
import warnings
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import PROMPTS, fine
from conftest import run_cli
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from small_artifacts import K
from small_artifacts import whole as whole

from coreinfer.artifact import Artifact
from coreinfer.report.document import document, ranges
from coreinfer.report.figures import COLUMN, FIGURES, PAGE, save_figures
from coreinfer.report.seen import Seen, look_at

HOSTILE = [
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", "שלום עולם", "\u202eevil", "👩‍👩‍👧‍👦🏳️‍🌈",
    "w" * 400, "&amp;", "日本語", "\u2028", "'\"`${x}",
]  # fmt: skip


class Reader(HTMLParser):
    """Every element, and what stands in script elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.within: dict[str, list[str]] = {"script": [], "style": []}
        self.last = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.last = tag
        if tag in self.within:
            self.within[tag].append("")

    def handle_data(self, data: str) -> None:
        if self.last in self.within:
            self.within[self.last][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.last = ""

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.within["script"][0]))


@pytest.fixture(scope="module")
def hostile(whole: Path) -> Artifact:
    made = Artifact.load(whole)
    curve = [{"keep": 0.2, "rise": 0.2, "rise_high": 0.3}, {"keep": 0.3, "rise": 0.1, "rise_high": 0.15}]
    terms = [HOSTILE[:4], HOSTILE[4:7], HOSTILE[7:], [], ["plain"]]
    return replace(made, terms=terms, calibration=made.calibration | {"curve": curve})


@pytest.fixture(scope="module")
def seen(hostile: Artifact) -> Seen:
    return look_at(hostile, [])


def landing(prompt: str) -> dict[str, Any]:
    layer = {"prompt": [1, 0], "cluster": [1, 0], "both": [1, 0], "overlap": 1.0}
    return {
        "prompt": prompt, "source": "stability", "cluster": 1, "similarity": 0.1, "threshold": 0.25, "strong": 0.25,
        "reason": "weak match: <b>", "keep": 0.3, "nearest": [{"cluster": 1, "similarity": 0.1}],
        "compare": {"sizes": [25, 25], "layers": [layer] * 3, "overlap": 1.0}, "neurons": [[0, 1, 2, 7]] * 3,
    }  # fmt: skip


def test_it_is_one_file_that_asks_for_nothing(hostile: Artifact, seen: Seen) -> None:
    read = Reader(document(hostile, seen, "name"))
    for tag, attributes in read.elements:
        assert tag not in ("link", "img", "iframe", "object", "embed", "base")
        assert not {"src", "href", "srcset", "action"} & attributes.keys()
        assert not [name for name in attributes if name.startswith("on")]
        assert "style" not in attributes
    text = "".join(read.within["style"] + read.within["script"][1:])
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(|WebSocket|sendBeacon", text)


def test_its_policy_lets_nothing_run_but_what_is_in_it(hostile: Artifact, seen: Seen) -> None:
    read = Reader(document(hostile, seen, "name"))
    policy = next(a["content"] for tag, a in read.elements if tag == "meta" and "http-equiv" in a)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for content in read.within["style"] + read.within["script"][1:]:
        assert base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() in policy


def test_hostile_terms_and_prompts_stay_texts(hostile: Artifact, seen: Seen) -> None:
    clean = Reader(document(hostile, replace(seen, prompts=[landing("plain")] * len(HOSTILE)), "plain"))
    page = document(hostile, replace(seen, prompts=[landing(text) for text in HOSTILE]), "<script>name")
    read = Reader(page)
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in clean.elements], "no text became an element"
    assert [row["terms"] for row in read.data["overview"]["clusters"]] == hostile.terms
    assert [row["prompt"] for row in read.data["prompts"]] == HOSTILE
    assert "<script>alert" not in page
    assert "0–2, 7" in page


def test_what_was_not_measured_is_left_out(whole: Path) -> None:
    made = Artifact.load(whole)
    page = document(made, look_at(made, []), "name")
    assert '"curve":[]' in page
    assert "expected over dense</span>" not in page
    assert "40 passages" in page


@given(st.sets(st.integers(0, 60)))
def test_ranges_hold_the_same_numbers(numbers: set[int]) -> None:
    found: list[int] = []
    for part in ranges(sorted(numbers)).split(", ") if numbers else []:
        first, _, last = part.partition("–")
        found += range(int(first), int(last or first) + 1)
    assert found == sorted(numbers)


@pytest.fixture(scope="module")
def figures(hostile: Artifact, seen: Seen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    with warnings.catch_warnings():  # the font that ships with matplotlib has no Chinese: a box is drawn
        warnings.filterwarnings("ignore", "Glyph")
        assert save_figures(hostile, seen, folder) == list(FIGURES)
    return folder


def test_figures_are_a_column_wide_and_their_letters_outlines(figures: Path) -> None:
    assert {path.name for path in figures.iterdir()} == {f"{name}.{end}" for name in FIGURES for end in ("png", "svg")}
    for name in FIGURES:
        root = ElementTree.fromstring((figures / f"{name}.svg").read_text())
        inches = float(root.attrib["width"].removesuffix("pt")) / 72
        assert inches == pytest.approx(PAGE if name == "map" else COLUMN, abs=0.01)
        assert not list(root.iter("{http://www.w3.org/2000/svg}text"))
        assert list(root.iter("{http://www.w3.org/2000/svg}path"))


def test_figures_are_the_same_each_time_and_lack_a_curve_that_was_not_measured(
    hostile: Artifact, seen: Seen, figures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(FIGURES, "map")  # slow; tests/test_picture.py looks at it
    uncurved = replace(hostile, calibration={name: v for name, v in hostile.calibration.items() if name != "curve"})
    assert save_figures(uncurved, seen, tmp_path) == ["budgets", "overlap-by-layer", "overlap", "sizes"]
    for path in tmp_path.iterdir():
        assert path.read_bytes() == (figures / path.name).read_bytes()


@pytest.mark.parametrize("name", sorted(FIGURES.keys() - {"map"}))
def test_figures_hold_no_colour(name: str, figures: Path) -> None:
    picture = imread(figures / f"{name}.png")[..., :3]
    assert np.ptp(picture, axis=-1).max() < 0.01
    assert np.ptp(picture) > 0.9, "black on white"


def test_the_verb_writes_a_page_and_figures(artifact: Path, tmp_path: Path) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "new" / "figures"
    said = fine(run_cli("report", artifact, "-o", page, "--figures", figures, "--prompt", PROMPTS[0]))
    read = Reader(page.read_text("utf-8"))
    (prompt,) = read.data["prompts"]
    row = fine(run_cli("predict", "-a", artifact, PROMPTS[0], "--json", "--with-neurons")).rows[0]
    assert {name: prompt[name] for name in ("source", "cluster", "threshold", "reason", "keep")} == {
        name: row[name] for name in ("source", "cluster", "threshold", "reason", "keep")
    }
    assert [sum(layer["prompt"]) for layer in prompt["compare"]["layers"]] == row["neurons_per_layer"]
    assert f"<td>{ranges(row['neurons'][0])}</td>" in page.read_text("utf-8")
    assert len(list(figures.iterdir())) == 2 * (len(FIGURES) - (not read.data["overview"]["curve"]))
    assert said.out == ""
    assert "report.html" in said.err
    assert "figures" in said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "report.pdf"], "end the name in .html"),
        (["-o", "nowhere/report.html"], "there is no folder"),
        (["--figures", "file"], "file is a file, no folder"),
        (["--prompt", " "], "the prompt is empty"),
        (["--keep", "0.4"], "give --prompt too"),
        (["--keep", "2", "--prompt", "x"], "--keep is 2"),
        (["--dtype", "x"], "--dtype is 'x'"),
    ],
)
def test_what_is_refused(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("no folder")
    result = run_cli("report", whole, *arguments)
    assert result.code == 2
    assert result.err.count("\n") == 1
    assert said in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "nothing was made"


def test_a_missing_artifact_is_refused(tmp_path: Path) -> None:
    result = run_cli("report", tmp_path / "none", "-o", tmp_path / "report.html")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "no artifact at" in result.err
    assert not list(tmp_path.iterdir())
    assert K > 1
