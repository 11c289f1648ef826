"""A Chromium for tests: found on this machine, without a screen, and with an ear for what it asks of whom."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

BROWSERS, DRIVERS = ("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium.chromedriver")
LEFT, UP, RIGHT, DOWN = "\ue012", "\ue013", "\ue014", "\ue015"  # the keys, as WebDriver writes them
ARGUMENTS = (
    "--headless=new", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking", "--no-first-run",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)  # fmt: skip


def _found(variable: str, names: tuple[str, ...]) -> str | None:
    """By the environment, else by name."""
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get(variable), *names)))), None)


def why_not() -> str:
    """Why no page can be driven here; "" where one can."""
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "pip install selenium: it drives the browser"
    if not (_found("CHROMIUM", BROWSERS) and _found("CHROMEDRIVER", DRIVERS)):
        return (
            "no Chromium with its driver here: apt install chromium chromium-driver, or set CHROMIUM and CHROMEDRIVER"
        )
    return ""


class Browser:
    """A tab, by what its elements are called."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str) -> None:
        self.driver.get(address)

    def at(self, name: str) -> Any:
        return self.driver.find_element("id", name)

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def text(self, name: str) -> str:
        """All of it, seen or not."""
        return str(self.at(name).get_attribute("textContent"))

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def until(self, wanted: Callable[[], Any], seconds: float = 20) -> Any:
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, seconds, 0.05).until(lambda _: wanted())

    def type(self, name: str, text: str) -> None:
        """In the place of what is there; letters that a driver cannot type are pasted."""
        self.run(
            "const at = document.getElementById(arguments[0]); at.focus(); at.value = arguments[1];"
            "at.dispatchEvent(new Event('input', { bubbles: true }))", name, text,
        )  # fmt: skip

    def press(self, *keys: str) -> None:
        """On whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def sized(self, width: int, theme: str) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Whom it has asked since the last call."""
        said = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        return [s["params"]["request"]["url"] for s in said if s["method"] == "Network.requestWillBeSent"]


@contextmanager
def browsing() -> Iterator[Browser]:
    """A browser without a screen, until the end of the block; skips the test where there is none."""
    if reason := why_not():
        pytest.skip(reason)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = _found("CHROMIUM", BROWSERS) or ""
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    for argument in (*ARGUMENTS, *root):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_found("CHROMEDRIVER", DRIVERS)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
