"""What a server lets in, and what it says to the rest."""

import base64
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from conftest import run_cli
from serving import Live, live, refused

from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.serve.limits import Limits
from coreinfer.serve.sockets import bound

KEY = "a secret of some length"
BEARER = {"Authorization": f"Bearer {KEY}"}
COMPLETIONS = "/v1/completions"


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Live]:
    with live(engine, limits=Limits(batch=2, queue=4, upload_s=1.0)) as made:
        yield made


@pytest.fixture(scope="module")
def locked(engine: Engine) -> Iterator[Live]:
    with live(engine, key=KEY) as made:
        yield made


@pytest.mark.parametrize(
    ("body", "words", "param"),
    [
        ("{", ["the body is no JSON", "mend it"], None),
        ("[]", ["the body is no JSON object: send one"], None),
        ("{}", ["'prompt' is missing"], "prompt"),
        ('{"prompt": 5}', ["prompt: ", "(got 5)"], "prompt"),
        ('{"prompt": []}', ["prompt"], "prompt"),
        ('{"prompt": ["a", 5]}', ["prompt"], "prompt"),
        ('{"prompt": [99999999]}', ["token 99999999", "leave it out"], "prompt"),
        ('{"prompt": "a", "max_tokens": 0}', ["max_tokens", "greater than or equal to 1"], "max_tokens"),
        ('{"prompt": "a", "max_tokens": "3"}', ["max_tokens", "valid integer", "'3'"], "max_tokens"),
        ('{"prompt": "a", "max_tokens": true}', ["max_tokens"], "max_tokens"),
        ('{"prompt": "a", "stop": ["a", "b", "c", "d", "e"]}', ["stop", "at most 4"], "stop"),
        ('{"prompt": "a", "stop": ""}', ["stop"], "stop"),
        ('{"prompt": "a", "logprobs": 21}', ["logprobs", "20"], "logprobs"),
        ('{"prompt": "a", "temperature": 0.001}', ["temperature is 0.001: give 0"], "temperature"),
        ('{"prompt": "a", "temperature": NaN}', ["temperature"], "temperature"),
        ('{"prompt": "a", "keep": 1.5}', ["keep"], "keep"),
        ('{"prompt": "a", "keep": 0}', ["keep"], "keep"),
        ('{"prompt": "a", "stream_options": {"include_usage": true}}', ["give stream true"], None),
        ('{"prompt": "a", "tools": []}', ["'tools' is not known here: leave it out"], "tools"),
        ('{"prompt": "\\ud800"}', ["prompt", "unicode"], "prompt"),
    ],
)
def test_bad_bodies(server: Live, body: str, words: list[str], param: str | None) -> None:
    answer = httpx.post(server.url + COMPLETIONS, content=body, headers={"Content-Type": "application/json"})
    assert refused(answer, 400, *words)["param"] == param


def test_a_body_of_another_type(server: Live) -> None:
    """As `curl -d` sends it, without a header."""
    answer = httpx.post(
        server.url + COMPLETIONS,
        content='{"prompt": "a"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    refused(answer, 400, "the body is no JSON object: send one, with the header Content-Type: application/json")


def test_a_chat_without_a_template(server: Live) -> None:
    turns = {"messages": [{"role": "user", "content": "Hello"}]}
    said = refused(server.post("/v1/chat/completions", turns), 400, "has no chat template", "--plain-chat")
    assert said["code"] == "no_chat_template"
    refused(server.post("/v1/chat/completions", {"messages": []}), 400, "messages")
    refused(server.post("/v1/chat/completions", {"messages": [{"role": "robot", "content": ""}]}), 400, "role")


def test_what_is_no_route_or_no_json(server: Live) -> None:
    refused(server.get("/v1/nothing"), 404, "there is no GET /v1/nothing")
    answer = server.get(COMPLETIONS)
    refused(answer, 405)
    assert answer.headers["allow"] == "POST"
    text = httpx.post(server.url + COMPLETIONS, content='{"prompt": "a"}', headers={"Content-Type": "text/plain"})
    refused(text, 400)  # what a page elsewhere may send without asking
    refused(httpx.post(server.url + COMPLETIONS, content='{"prompt": "a"}'), 400)  # nor without saying what it is
    assert server.get("/v1/nothing").headers["x-content-type-options"] == "nosniff"


def test_too_large_and_too_slow(server: Live) -> None:
    refused(server.post(COMPLETIONS, {"prompt": "a" * (1 << 20)}), 413, "at most 1048576")
    chunks = (b"a" * (1 << 16) for _ in range(20))  # of no said length
    refused(httpx.post(server.url + COMPLETIONS, content=chunks), 413, "at most 1048576")
    port = int(server.url.rsplit(":", 1)[1])
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port), 10) as slow:
        slow.sendall(head)
        assert b"408" in slow.recv(1 << 12)


def test_another_host_is_refused_without_a_key(server: Live, locked: Live) -> None:
    refused(server.get("/v1/models", headers={"Host": "evil.example"}), 403, "start the server with a key")
    assert server.get("/v1/models", headers={"Host": "localhost"}).status_code == 200
    assert locked.get("/v1/models", headers={"Host": "my.server", **BEARER}).status_code == 200


def test_a_page_of_another_origin_is_refused_without_a_key(server: Live, locked: Live) -> None:
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"},
                    {"Origin": "http://localhost:1"}):  # fmt: skip
        refused(server.get("/v1/models", headers=headers), 403, "of another origin", "start the server with a key")
        refused(server.post("/health", {}, headers=headers), 403)
        assert server.get("/health", headers=headers).status_code == 200
        assert locked.get("/v1/models", headers={**headers, **BEARER}).status_code == 200
    own = {"Origin": server.url, "Sec-Fetch-Site": "same-origin"}
    assert server.get("/v1/models", headers=own).status_code == 200


def test_half_a_second_request_is_not_waited_for(server: Live) -> None:
    """Whether its bytes stop, or trickle."""
    port = int(server.url.rsplit(":", 1)[1])
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        socket.create_connection(("127.0.0.1", port), 10) as slow,
        socket.create_connection(("127.0.0.1", port), 10) as drip,
    ):
        for one in (slow, drip):
            one.sendall(head)
            said = b""
            while not said.endswith(b"}"):  # the head and the body may come apart
                said += one.recv(1 << 12)
            assert b"200" in said
            one.sendall(head[:10])
        begun = time.monotonic()
        with suppress(OSError):
            while time.monotonic() < begun + 30:
                drip.sendall(b"a")
                time.sleep(0.1)
        assert 0.5 < time.monotonic() - begun < 20  # a second was allowed; a busy machine takes its time
        assert slow.recv(1) == b""


def test_no_more_connections_than_may_be(engine: Engine) -> None:
    with live(engine, limits=Limits(batch=1, connections=1)) as small:
        port = int(small.url.rsplit(":", 1)[1])
        some = [socket.create_connection(("127.0.0.1", port), 10) for _ in range(3)]
        with suppress(ConnectionResetError):
            assert some[2].recv(1) == b""
        some[0].close()
        some[2].close()
        assert small.get("/health").status_code == 200
        some[1].close()


def test_a_line_of_log_cannot_be_forged(server: Live, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "coreinfer.serve"):
        server.get("/a%0a1234 POST")
        end = time.monotonic() + 5
        while not any("1234 POST" in r for r in caplog.messages):  # written once the answer has left
            assert time.monotonic() < end
            time.sleep(0.01)
    assert not any("\n" in r for r in caplog.messages)


def test_the_key_is_asked_for_everywhere_but_health(locked: Live) -> None:
    assert locked.get("/health").json() == {"status": "ok"}
    paths = ["/ready", "/metrics", "/v1/models", "/openapi.json", "/", "/nothing"]
    for path in paths:
        answer = locked.get(path)
        refused(answer, 401, "the API key is missing or wrong")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    for wrong in ("Bearer", f"Bearer {KEY}x", f"Token {KEY}", "Basic ???", "Bearer \u00e9".encode()):
        assert locked.get("/ready", headers={"Authorization": wrong}).status_code == 401
    basic = base64.b64encode(f"me:{KEY}".encode()).decode()
    for right in (f"Bearer {KEY}", f"bearer {KEY}", f"Basic {basic}"):
        assert locked.get("/ready", headers={"Authorization": right}).status_code == 200
    refused(locked.post("/admin/artifact", {"path": "/"}), 401)


def test_without_a_key_no_other_address() -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        with pytest.raises(CoreInferError, match=r"lets others in and there is no key: give --api-key"):
            bound(host, 0, None)
    bound("0.0.0.0", 0, "k").close()


def test_no_prompt_is_logged_unless_asked_for(engine: Engine, server: Live, caplog: pytest.LogCaptureFixture) -> None:
    body = {"prompt": "a-secret-word in a prompt", "max_tokens": 1}
    with caplog.at_level(logging.DEBUG):
        server.post(COMPLETIONS, body)
        server.post(COMPLETIONS, {**body, "max_tokens": 0})
        assert "a-secret-word" not in caplog.text
        assert f"POST '{COMPLETIONS}' 200" in caplog.text
        with live(engine, log_prompts=True) as talks:
            talks.post(COMPLETIONS, body)
    assert "a-secret-word" in caplog.text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others in and there is no key"),
        (["--port", 99999], "--port is 99999: give 1 to 65535"),
        (["--batch", 0], "--batch is 0: give at least 1"),
        (["--policy", "best"], "--policy is 'best': choose one of"),
        (["--keep", 2], "--keep is 2: give a share"),
        (["--artifact", "/nowhere"], "/nowhere"),
        (["--api-key", " "], "the key is empty"),
        (["--api-key", "clé"], "characters that a header cannot hold"),
        (["--keep", 0.001], "--keep is 0.001, the least that was calibrated is"),
        (["--timeout", 0], "--timeout is 0: give seconds"),
    ],
)
def test_bad_options_are_one_line(arguments: list[object], words: str) -> None:
    made = run_cli("serve", "--port", 0, *arguments)
    assert (made.code, made.out, made.err.count("\n")) == (2, "", 1)
    assert words in made.err


def test_a_spoilt_artifact_or_a_port_in_use_is_one_line(shop: Path) -> None:
    for name in ("changed", "missing", "older"):
        made = run_cli("serve", "-a", shop / name)
        assert (made.code, made.err.count("\n")) == (2, 1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        made = run_cli("serve", "-a", shop / "good", "--port", taken.getsockname()[1])
    assert (made.code, made.err.count("\n")) == (2, 1)
    assert "cannot listen on 127.0.0.1" in made.err
    assert "give another --port" in made.err
