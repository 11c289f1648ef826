"""A live server in this process, on a port of its own, and clients for it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai

from coreinfer.engine import Engine
from coreinfer.serve.lifetime import Server, Serving
from coreinfer.serve.sockets import bound


@dataclass(frozen=True)
class Live:
    """A server that answers at ``url``."""

    server: Server
    url: str
    key: str | None

    @property
    def openai(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key or "none", max_retries=0)

    def post(self, path: str, body: Any, **how: Any) -> httpx.Response:
        return httpx.post(f"{self.url}{path}", json=body, timeout=60, **how)

    def get(self, path: str, **how: Any) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=60, **how)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        headers = {"Authorization": f"Bearer {self.key}"}
        lines = self.get("/metrics", headers=headers).text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


@contextmanager
def live(engine: Engine, **how: Any) -> Iterator[Live]:
    """Served until the context is left; then all has ended."""
    serving = Serving(**how)
    server = Server(engine, bound("127.0.0.1", 0, serving.key), serving)
    port, ready = server.sock.getsockname()[1], threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(ready.set)))
    thread.start()
    assert ready.wait(60)
    try:
        yield Live(server, f"http://127.0.0.1:{port}", serving.key)
    finally:
        if thread.is_alive():
            server.stop()
        thread.join(60)
        assert not thread.is_alive()


def refused(answer: httpx.Response, status: int, *words: str) -> dict[str, Any]:
    """OpenAI's form, one line."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "\n" not in error["message"]
    assert all(word in error["message"] for word in words), error
    return error
