"""The page and the report in a real browser, driven as a reader would; skipped where there is none."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import DOWN, LEFT, RIGHT, UP, Browser, browsing, why_not
from page_server import Standing, serving

from coreinfer import Engine
from coreinfer.artifact import Artifact
from coreinfer.page import overview
from coreinfer.report.document import document
from coreinfer.report.seen import landed, look_at

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a browser is here")
CURVE = [{"keep": 0.2, "rise": 0.2, "rise_high": 0.3}, {"keep": 0.4, "rise": 0.1, "rise_high": 0.15}]
TEXT = "Every living cell is wrapped in a membrane"
ODD = "<script>alert(1)</script> שלום 👩‍👩‍👧‍👦 " + "w" * 300


@pytest.fixture(scope="module")
def engine(artifact: Path) -> Engine:
    """With a curve, and a threshold that some texts reach."""
    made = Artifact.load(artifact)
    policy = replace(made.policy, threshold=0.25, strong=0.25)
    return Engine(replace(made, policy=policy, calibration=made.calibration | {"curve": CURVE}))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as made:
        yield made


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Standing]:
    with serving(engine, overview(engine.artifact)) as made:
        yield made


@pytest.fixture
def page(browser: Browser, server: Standing) -> Iterator[Browser]:
    """The page, fresh; at the end nothing was complained of, and nobody else was asked."""
    server.faults, server.key, server.cut, server.pace = [], "", 0, 0.0
    browser.sized(1440, "light")
    browser.complaints(), browser.requests()
    browser.open(server.address)
    browser.until(lambda: browser.all("#map .dot"))
    yield browser
    assert browser.complaints() == []
    assert all(url.startswith((server.address, "data:")) for url in browser.requests())


def lands(page: Browser, text: str) -> None:
    page.run("document.getElementById('source').textContent = ''")
    page.type("prompt", text)
    page.until(lambda: page.text("source"))


def test_a_prompt_lands(page: Browser, engine: Engine) -> None:
    found = engine.predict(TEXT)
    lands(page, TEXT)
    assert (
        page.text("source")
        == "Decides: " + {"hybrid": "its topic, and itself", "similarity": "its topic"}[found.source]
    )
    assert f"{found.similarity:.3f} to cluster {found.cluster}" in page.text("why")
    (dot,) = page.all("#map .dot.landed")
    assert dot.get_attribute("id") == f"cluster-{found.cluster}"
    assert len(page.all("#map .link")) == min(engine.artifact.policy.mixture, engine.artifact.manifest.clusters) - 1
    (gauge,) = page.all("#gauge svg")
    assert gauge.get_attribute("aria-label") == f"Similarity {found.similarity:.3f}, threshold 0.250"
    panels = page.until(lambda: len(page.all("#heat svg")) == 4 and page.all("#heat svg"))
    assert found.neurons is not None
    assert f"prompt's {sum(found.neurons.per_layer):,} neurons" in panels[0].get_attribute("aria-label")


def test_a_weak_match_falls_back_in_words(page: Browser, engine: Engine) -> None:
    text = next(text for text in ("0x7f zzkq ~~ 9981", "!!", "qqq") if engine.predict(text).source == "stability")
    lands(page, text)
    assert page.text("source") == "Decides: itself"
    assert "Weak match: similarity" in page.text("why")
    assert page.text("terms").startswith("Nearest, yet too far: cluster")
    assert len(page.all("#map.weak .dot.landed")) == 1
    assert page.all("#map .link") == []


def test_the_slider_says_what_a_keep_costs(page: Browser, server: Standing) -> None:
    lands(page, TEXT)
    page.at("keep").click()
    server.bodies.clear()
    for steps in (0, 3):
        page.run("const at = document.getElementById('keep'); at.focus(); at.value = 0.4")
        page.press(*[LEFT] * steps)
        page.run("document.getElementById('keep').dispatchEvent(new Event('input'))")
        keep = float(page.at("keep").get_attribute("value"))
        assert keep == pytest.approx(0.4 - 0.05 * steps)
        rise = np.interp(keep, [0.2, 0.4, 1], [0.2, 0.1, 0])
        assert page.text("cost") == f"+{rise:.3f}"
        assert f"{keep:.2f}: +{rise:.3f}" in page.at("keep").get_attribute("aria-valuetext")
    page.until(lambda: any(body.get("keep") == 0.25 for body in server.bodies))
    page.run("const at = document.getElementById('keep'); at.value = 0.1; at.dispatchEvent(new Event('input'))")
    assert (page.text("cost"), page.text("cost-words")) == ("unknown", "not measured below keep 0.2")


def test_it_generates_dense_and_core(page: Browser, engine: Engine) -> None:
    page.type("prompt", TEXT)
    page.type("most", "12")
    page.at("go").click()
    page.until(lambda: page.text("done").startswith("Done."))
    dense = engine.generate(TEXT, policy="dense", max_new_tokens=12).text
    core = engine.generate(TEXT, keep=0.4, max_new_tokens=12).text
    assert page.text("dense-text") == TEXT + dense
    assert page.text("core-text") == TEXT + core
    assert len(page.all("#core-text mark")) == (dense != core)
    assert page.text("done") == ("Done. The texts differ." if dense != core else "Done. The texts are the same.")
    for pane in ("dense", "core"):
        assert page.text(f"{pane}-speed").endswith(" tok/s")
    assert page.at("go").is_enabled()
    assert not page.at("stop").is_enabled()


def test_another_artifact_is_read_anew(page: Browser, server: Standing) -> None:
    lands(page, TEXT)
    server.artifact = "b" * 64
    server.asked.clear()
    page.type("prompt", TEXT + " and")
    page.until(lambda: "/v1/clusters" in server.asked)
    page.until(lambda: page.all("#map .dot.landed"))
    assert page.at("prompt").get_attribute("value") == TEXT + " and", "what was typed is still there"
    server.artifact = "a" * 64


def test_a_generation_can_be_stopped(page: Browser, server: Standing) -> None:
    server.pace = 0.2
    page.type("prompt", TEXT)
    page.at("together").click()
    assert "Both share the machine" in page.text("order")
    page.at("together").click()
    page.at("go").click()
    page.until(lambda: page.text("dense-text") > TEXT)
    page.at("stop").click()
    page.until(lambda: page.text("done") == "Stopped.")
    assert "stopped" in page.text("dense-foot")
    assert page.text("core-foot") == "not begun"


def test_refusals_are_said_in_words(browser: Browser, server: Standing, page: Browser) -> None:
    server.faults = [(503, "8 requests are waiting", 1)]
    page.type("prompt", TEXT)
    page.until(lambda: "Try again in 1 second." in page.text("alert"))
    again = page.until(lambda: next((b for b in page.all("#alert button") if b.is_enabled()), None), 5)
    again.click()
    page.until(lambda: page.text("source"))
    assert not page.at("alert").is_displayed()
    server.faults = [(400, "keep is 7: give a share", 0)]
    page.type("prompt", TEXT + " and")
    page.until(lambda: page.text("alert") == "The server refused: keep is 7: give a share")
    lands(page, TEXT)
    server.cut = 2
    page.at("go").click()
    page.until(lambda: "connection was lost" in page.text("alert"))
    server.cut = 0
    assert [line for line in browser.complaints() if "503" not in line and "400" not in line] == []


def test_a_key_is_asked_for(browser: Browser, server: Standing) -> None:
    server.faults, server.key, server.cut, server.pace = [], "the key", 0, 0.0
    browser.open(server.address)
    browser.until(lambda: browser.at("locked").is_displayed())
    assert browser.run("return document.activeElement.id") == "key"
    browser.press("wrong", "\n")
    browser.until(lambda: browser.at("locked").is_displayed())
    browser.run("document.getElementById('key').value = ''")
    browser.at("key").send_keys("the key\n")
    browser.until(lambda: browser.all("#map .dot"))
    assert not browser.at("locked").is_displayed()
    browser.run("sessionStorage.clear()")
    assert all("401" in line for line in browser.complaints())


def test_keys_alone_walk_the_map(page: Browser, engine: Engine) -> None:
    page.run("document.querySelector('#map svg').focus()")
    for key in (RIGHT, LEFT, DOWN, UP):
        page.press(key)
        name = page.run("return document.querySelector('#map svg').getAttribute('aria-activedescendant')")
        spoken = page.at(name).get_attribute("aria-label")
        assert spoken.startswith(f"cluster {name.removeprefix('cluster-')}: ")
        assert page.all("#map .tip:not([hidden])")
    before = page.run("return document.querySelector('#map svg').getAttribute('viewBox')")
    page.press("+")
    assert page.run("return document.querySelector('#map svg').getAttribute('viewBox')") != before
    page.press("0")
    assert page.run("return document.querySelector('#map svg').getAttribute('viewBox')") == before


def test_a_search_lights_what_it_finds(page: Browser, engine: Engine) -> None:
    word = engine.artifact.terms[0][0]
    found = [c for c, terms in enumerate(engine.artifact.terms) if any(word in term for term in terms)]
    page.type("search", word)
    assert page.text("found") == f"{len(found)} cluster" + "s" * (len(found) != 1)
    assert [dot.get_attribute("id") for dot in page.all("#map .dot.lit")] == [f"cluster-{c}" for c in found]
    page.type("search", "<b>nothing")
    assert page.text("found") == "no cluster"
    page.type("search", "")
    assert not page.all("#map.away")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_is_wider_than_its_screen(page: Browser, theme: str) -> None:
    lands(page, ODD)
    page.type("most", "2")
    page.at("go").click()
    page.until(lambda: page.text("done").startswith("Done."))
    assert ODD in page.text("dense-text")
    for width in (360, 768, 1440):
        page.sized(width, theme)
        page.until(lambda: page.run("return innerWidth") == width)  # noqa: B023
        assert page.run("return document.documentElement.scrollWidth") <= width
    dark = page.run("return getComputedStyle(document.body).backgroundColor")
    assert dark == {"light": "rgb(252, 251, 248)", "dark": "rgb(22, 24, 28)"}[theme]
    page.at("theme").click()
    assert page.run("return getComputedStyle(document.body).backgroundColor") != dark
    page.run("localStorage.clear()")


CONTRAST = """
const light = (text) => {
  const parts = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255);
  const [r, g, b] = parts.map((v) => (v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4));
  return .2126 * r + .7152 * g + .0722 * b;
};
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour;
  }
};
const poor = [];
for (const node of document.querySelectorAll("main *:not(svg *):not(option)")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.checkVisibility() || node.disabled || node.closest(".hidden")) continue;
  const [a, b] = [getComputedStyle(node).color, behind(node)].map(light);
  const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
  if (ratio < 4.5) poor.push(`${node.tagName}#${node.id}: ${ratio.toFixed(2)} ${node.textContent.slice(0, 30)}`);
}
return poor;
"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_words_stand_out_from_their_ground(page: Browser, theme: str) -> None:
    """WCAG's AA: 4.5 to 1."""
    page.sized(1440, theme)
    lands(page, TEXT)
    assert page.run(CONTRAST) == []


def test_every_control_has_a_name(page: Browser) -> None:
    for element in page.all("button, input, textarea, [role=region], [role=listbox], [role=img]"):
        assert element.accessible_name or not element.is_displayed(), element.get_attribute("outerHTML")[:200]


def test_a_report_opens_without_a_server(browser: Browser, engine: Engine, tmp_path: Path) -> None:
    prompts = landed(engine, [TEXT, ODD], None)
    made: dict[str, Any] = look_at(engine.artifact, prompts).overview
    (tmp_path / "report.html").write_text(document(engine.artifact, look_at(engine.artifact, prompts), "it"), "utf-8")
    browser.complaints(), browser.requests()
    for width in (360, 1440):
        browser.sized(width, "light")
        browser.open(f"file://{tmp_path / 'report.html'}")
        assert len(browser.all("#map .dot")) == len(made["clusters"])
        assert len(browser.all("#map .ring")) == 2
        for part in ("curve", "budgets", "sizes", "layers", "matrix", "gauge-0", "gauge-1"):
            assert browser.all(f"#{part} svg"), part
        assert len(browser.all("#heat-0 svg")) == 4
        assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.at("table").find_element("css selector", "summary").click()
    assert len(browser.until(lambda: browser.all("#table tbody tr"))) == len(made["clusters"])
    assert json.loads(browser.text("data"))["overview"] == made
    assert browser.complaints() == []
    assert all(url.startswith(f"file://{tmp_path}") for url in browser.requests())
