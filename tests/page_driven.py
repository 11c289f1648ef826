"""The page in a browser, fresh for each test, before a server that can be told to fail."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browsing import Browser, browsing
from page_server import Standing, serving

from coreinfer import Engine
from coreinfer.artifact import Artifact
from coreinfer.page import overview

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
