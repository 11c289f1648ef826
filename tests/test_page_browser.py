"""The page in a real browser, driven as a reader would: prompts, texts, refusals; skipped where there is none."""

import numpy as np
import pytest
from browsing import LEFT, Browser, why_not
from page_driven import TEXT, lands
from page_driven import browser as browser
from page_driven import engine as engine
from page_driven import page as page
from page_driven import server as server
from page_server import Standing

from coreinfer import Engine

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "a browser is here")


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
