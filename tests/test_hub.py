"""Where a model lies that a name means, with a Hub that answers, refuses, fails, or keeps silent."""

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import huggingface_hub
import pytest
from conftest import run_cli
from huggingface_hub import constants

from coreinfer import CoreInferError, hub
from coreinfer.hub import DEFAULT, Silence, check_hub, embedder_place, model_place
from coreinfer.paths import DEMO_LM
from pipeline.readers import check_dataset


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tests run offline; these may ask, and what one was told another does not know."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    check_hub.cache_clear()
    yield
    check_hub.cache_clear()


@contextmanager
def answering(status: int, code: str, monkeypatch: pytest.MonkeyPatch, after: float = 0.0) -> Iterator[list[str]]:
    """A Hub that answers everything so, some seconds later; yields the paths that it is asked for."""
    asked = list[str]()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith(("/api/models/", "/api/datasets/")):  # the library has questions of its own
                asked.append(self.path)
                time.sleep(after)
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(b'{"id": "me/it"}')

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        yield asked
        server.shutdown()


@contextmanager
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A Hub that takes a call and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "SECONDS", 0.2)
        for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
            monkeypatch.setattr(constants, name, 0.3)
        yield


def test_what_is_on_this_machine_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lm").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with answering(500, "", monkeypatch) as asked:
        assert model_place("demo") == str(DEMO_LM)
        assert model_place("lm") == "lm"
        assert model_place("~/lm") == embedder_place(str(tmp_path / "lm")) == str(tmp_path / "lm")
        assert (Path(embedder_place(DEFAULT)) / "modules.json").is_file()
    assert asked == []


@pytest.mark.parametrize("status", [200, 429, 503])
def test_a_hub_that_answers_is_loaded_from(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is busy: what loads tries again. It is asked once in a process."""
    with answering(status, "", monkeypatch) as asked:
        assert [model_place("me/it"), model_place("me/it"), embedder_place("it")] == [
            "me/it", "me/it", "sentence-transformers/it",
        ]  # fmt: skip
        check_dataset("me/data")
    assert asked == ["/api/models/me/it", "/api/models/sentence-transformers/it", "/api/datasets/me/data"]


def test_what_the_hub_has_not_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(404, "RepoNotFound", monkeypatch) as asked:
        for place, what in ((model_place, "language model"), (embedder_place, "embedder"), (check_dataset, "dataset")):
            with pytest.raises(CoreInferError, match=f"the Hub has no {what} 'me/it'"):
                place("me/it")
    assert len(asked) == 3


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize("name", ["./nowhere", "a/b/c", "/nowhere/at/all"])
def test_a_path_that_is_not_there_is_no_question(name: str, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    with answering(200, "", monkeypatch) as asked, pytest.raises(CoreInferError, match="neither file nor folder"):
        model_place(name)
    assert asked == []


def cached(place: Path, name: str) -> Path:
    """A model as it lies in the cache after a download."""
    top = place / f"models--{name.replace('/', '--')}"
    folder = top / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", "utf-8")
    (top / "refs").mkdir()
    (top / "refs" / "main").write_text("a" * 40, "utf-8")
    return folder


@pytest.mark.parametrize("offline", [False, True])
def test_without_the_hub_what_was_downloaded_is_found(
    tmp_path: Path, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = cached(tmp_path, "me/it")
    with silent(monkeypatch):
        assert model_place("me/it") == str(folder)
        begun = time.monotonic()
        with pytest.raises(Silence, match=r"no language model 'me/other' on this machine, and .*the Hub"):
            model_place("me/other")
        assert time.monotonic() - begun < 5


def test_an_embedder_in_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    folder = cached(tmp_path, "sentence-transformers/it")
    assert embedder_place("it") == str(folder)


def test_a_slow_hub_is_waited_for_as_its_library_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the model was downloaded before; and the message says how to wait longer."""
    monkeypatch.setattr(hub, "SECONDS", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.1)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = cached(tmp_path, "me/cached")
    with answering(200, "", monkeypatch, after=0.5) as asked:
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        with pytest.raises(
            Silence, match=r"does not answer \(.*, or set HF_HUB_ETAG_TIMEOUT to wait longer than 0\.2 s"
        ):
            model_place("me/it")
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 20)
        assert model_place("me/it") == "me/it"
        assert model_place("me/cached") == str(folder)
    assert asked == ["/api/models/me/it"] * 4 + ["/api/models/me/cached"] * 2


def test_silence_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent(monkeypatch), pytest.raises(Silence):
        model_place("me/it")
    with answering(200, "", monkeypatch):
        assert model_place("me/it") == "me/it"


def test_a_verb_says_it_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """And asks nothing of the Hub's own library, which would take half a minute for each file."""
    monkeypatch.setattr(huggingface_hub.file_download, "get_hf_file_metadata", None)
    with silent(monkeypatch):
        result = run_cli("predict", "words", "--model", "me/it")
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert "the Hub does not answer (" in result.err
