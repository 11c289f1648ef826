"""Clients that leave, more of them than there is room for, artifacts that change, and the end."""

import asyncio
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Live, live

from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError
from coreinfer.serve.lifetime import Server, Serving
from coreinfer.serve.limits import Limits
from coreinfer.serve.sockets import bound

COMPLETIONS = "/v1/completions"
PROMPTS = ["The river that runs through the old town", "She cut the onions and", "The court ruled that", "Stars are"]
LONG = {"prompt": PROMPTS[0], "max_tokens": 400, "temperature": 0, "stream": True}


@pytest.fixture(scope="module")
def server(engine: Engine) -> Iterator[Live]:
    with live(engine, limits=Limits(batch=2, queue=4)) as made:
        yield made


def idle(server: Live, seconds: float) -> bool:
    """Whether no slot is in use within so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if server.metric("coreinfer_slots_in_use") == server.metric("coreinfer_queue_length") == 0:
            return True
        time.sleep(0.02)
    return False


def test_texts_that_share_steps_are_what_they_are_alone(server: Live, engine: Engine) -> None:
    """Four at a time, two slots: topics, policies and keeps mixed; none depends on who else is there."""
    wishes = [{"prompt": p, "policy": w, "keep": k} for p, w, k in zip(
        PROMPTS, ("auto", "similarity", "dense", "stability"), (0.4, 0.2, 1.0, 0.3), strict=True)]  # fmt: skip

    def asked(wish: dict[str, Any]) -> str:
        body = {**wish, "max_tokens": 24, "temperature": 0}
        return str(server.post(COMPLETIONS, body).json()["choices"][0]["text"])

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(asked, wishes))
    for wish, text in zip(wishes, made, strict=True):
        policy: Any = wish["policy"]
        assert engine.generate(str(wish["prompt"]), policy, float(wish["keep"]), max_new_tokens=24).text == text  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_its_slot(server: Live, stream: bool) -> None:
    left = server.metric("coreinfer_left_early_total")

    async def leave() -> None:
        async with httpx.AsyncClient() as client:
            body = {**LONG, "stream": stream, "n": 2}
            with suppress(TimeoutError):
                await asyncio.wait_for(client.post(server.url + COMPLETIONS, json=body), 0.3)

    asyncio.run(leave())
    begun = time.monotonic()
    assert idle(server, 1.0)
    assert time.monotonic() - begun < 1
    assert server.metric("coreinfer_left_early_total") == left + 1


def test_more_than_may_wait_is_told_to_come_again(server: Live) -> None:
    """Two slots and four that may wait: whoever is let in has a whole answer, the rest 503."""

    def asked(_: int) -> httpx.Response:
        return server.post(COMPLETIONS, {**LONG, "stream": False, "max_tokens": 60, "n": 2})

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(asked, range(8)))
    full = [one for one in made if one.status_code == 503]
    assert full
    assert len(full) < 8
    assert all(int(one.headers["retry-after"]) >= 1 and "come again" in one.json()["error"]["message"] for one in full)
    whole = [one.json()["usage"]["completion_tokens"] for one in made if one.status_code == 200]
    assert whole == [120] * (8 - len(full))
    assert idle(server, 1.0)


def test_a_request_ends_in_time(engine: Engine) -> None:
    with live(engine, limits=Limits(seconds=0.4)) as quick:
        made = quick.post(COMPLETIONS, {**LONG, "stream": False}).json()["choices"][0]
        assert (made["finish_reason"], made["coreinfer"]["stopped"]) == ("length", "time")


def test_a_swap_under_load_mixes_nothing_and_a_bad_one_changes_nothing(
    engine: Engine, artifact: Path, shop: Path, tmp_path: Path
) -> None:
    """The other artifact keeps another share by default, so an answer's neurons say whose it is."""
    other = Path(shutil.copytree(artifact, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    (other / "manifest.json").write_text(json.dumps({**manifest, "default_keep": 0.25}))
    stop, seen, faults = threading.Event(), set[tuple[str, float]](), list[str]()
    with live(engine, limits=Limits(batch=4)) as server:
        first = server.server.version.digest

        def ask(number: int) -> None:
            while not stop.is_set():
                body = {"prompt": PROMPTS[number], "max_tokens": 12, "temperature": 0}
                answer = server.post(COMPLETIONS, body)
                if answer.status_code != 200:
                    faults.append(answer.text)
                    return
                core = answer.json()["choices"][0]["coreinfer"]
                seen.add((answer.headers["x-coreinfer-artifact"], core["neurons"] / (6 * 2560)))

        with ThreadPoolExecutor(3) as pool:
            for number in range(3):
                pool.submit(ask, number)
            try:
                for number in range(6):
                    made = server.post("/admin/artifact", {"path": str((other, artifact)[number % 2])})
                    assert made.status_code == 200, made.text
                    assert made.json()["artifact"] == server.server.version.digest
                for bad in ("changed", "missing", "older", "nowhere", 1000 * "long"):
                    answer = server.post("/admin/artifact", {"path": str(shop / bad)})
                    assert answer.status_code == 400
                    assert "is served as before" in answer.json()["error"]["message"]
                    assert server.server.version.digest == first
            finally:
                stop.set()
        second = made.json()["before"]
        assert faults == []
        assert {keep for digest, keep in seen if digest == first} <= {0.4}
        assert {keep for digest, keep in seen if digest == second} <= {0.25}
        assert len(seen) == 2


def test_a_step_that_fails_is_told_and_the_next_text_is_served(server: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    table = server.server.service.worker.running.table  # type: ignore[union-attr]
    with monkeypatch.context() as patch:
        patch.setattr(table, "step", lambda: 1 / 0)
        answer = server.post(COMPLETIONS, {**LONG, "stream": False})
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        lines = server.post(COMPLETIONS, LONG).text.split("\n\n")
        assert "error" in json.loads(lines[-3].removeprefix("data: "))
        assert lines[-2] == "data: [DONE]"
    assert server.post(COMPLETIONS, {**LONG, "stream": False, "max_tokens": 3}).status_code == 200


def test_more_than_ever_fits_and_many_small_asks(server: Live) -> None:
    """Two slots and four places: asks wait in the queue as texts do."""
    answer = server.post(COMPLETIONS, {"prompt": PROMPTS, "n": 4})
    assert (answer.status_code, answer.json()["error"]["message"][:36]) == (400, "the request is for 16 texts, 6 fit h")

    def asked(_: int) -> int:
        return server.post("/v1/core-neurons", {"prompt": PROMPTS[0], "neurons": False}).status_code

    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(asked, range(16)))
    assert set(made) == {200, 503}
    assert idle(server, 1.0)


def test_a_server_whose_engine_fails_ends(engine: Engine) -> None:
    server = Server(engine, bound("127.0.0.1", 0, None), Serving(limits=Limits(batch=1)))

    def breaks() -> None:
        assert server.service is not None
        server.service.worker._purge = lambda: 1 / 0  # type: ignore[method-assign, assignment]
        server.service.worker.ask([lambda: None], float("inf"))

    with pytest.raises(CoreInferError, match=r"engine's thread failed \(.*\): see the log, and start the server again"):
        asyncio.run(server.serve(breaks))


def test_a_server_that_stops_finishes_what_it_began(engine: Engine) -> None:
    with live(engine) as server:
        with httpx.stream("POST", server.url + COMPLETIONS, json={**LONG, "max_tokens": 60}, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.server.stop()
            rest = [line for line in lines if line]
        assert rest[-1] == "data: [DONE]"
        assert json.loads(rest[-2].removeprefix("data: "))["choices"][0]["finish_reason"]
    with pytest.raises(httpx.ConnectError):
        server.get("/health")


def test_what_is_written_leaves_at_once() -> None:
    """Not after an acknowledgement of what was written before, for which a client may take 40 ms."""

    async def told() -> int:
        seen, sock = asyncio.get_running_loop().create_future(), bound("127.0.0.1", 0, None)

        def met(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            option = socket.IPPROTO_TCP, socket.TCP_NODELAY
            seen.set_result(writer.get_extra_info("socket").getsockopt(*option))
            writer.close()

        async with await asyncio.start_server(met, sock=sock):
            _, writer = await asyncio.open_connection(*sock.getsockname())
            writer.close()
            return int(await seen)

    assert asyncio.run(told())
