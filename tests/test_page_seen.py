"""The page and the report as they are seen: the map by keys, widths, contrast, names; skipped without a browser."""

import json
from pathlib import Path
from typing import Any

import pytest
from browsing import DOWN, LEFT, RIGHT, UP, Browser, why_not
from page_driven import ODD, TEXT, lands
from page_driven import browser as browser
from page_driven import engine as engine
from page_driven import page as page
from page_driven import server as server

from coreinfer import Engine
from coreinfer.report.document import document
from coreinfer.report.seen import landed, look_at

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a browser is here")


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
