"""The page as ``coreinfer serve`` shows it, in a browser: its routes and streams are those that the page asks for."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from browsing import browsing, why_not
from command_line import PROMPTS, start

MISSING = why_not() or ("" if find_spec("coreinfer.serve") and find_spec("uvicorn") else "coreinfer[serve] is not here")
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING or "all is here")


@pytest.fixture
def address(artifact: Path) -> Iterator[str]:
    process = start("serve", "--artifact", artifact, "--port", 0)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if "serving" in line:
                yield line.rpartition(" on ")[2].strip().removesuffix("/v1") + "/"
                break
        else:
            pytest.fail(f"it ended with {process.wait()}")
    finally:
        process.terminate()
        process.wait(60)
        process.stderr.close()
        assert process.stdout is not None
        process.stdout.close()


def test_the_served_page_lands_and_generates(address: str) -> None:
    with browsing() as page:
        page.open(address)
        page.until(lambda: page.all("#map .dot"), 60)
        page.type("prompt", PROMPTS[0])
        page.until(lambda: page.text("source"), 60)
        assert len(page.all("#heat svg")) == 4
        page.type("most", "8")
        page.at("go").click()
        page.until(lambda: page.text("done").startswith("Done."), 120)
        for pane in ("dense", "core"):
            assert len(page.text(f"{pane}-text")) > len(PROMPTS[0])
            assert page.text(f"{pane}-speed").endswith(" tok/s")
        assert page.text("dense-foot").startswith("dense, keep 1")
        assert page.text("core-foot").partition(",")[0] in ("hybrid", "stability", "similarity")
        assert page.complaints() == []
        assert all(url.startswith((address, "data:")) for url in page.requests())
