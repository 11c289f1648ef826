"""Clients as light as they can be, so that the server is what is measured: HTTP over asyncio's own streams."""

import asyncio
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TOPICS = (
    "The river that runs through the old town", "She cut the onions and fried them in butter", "The court ruled that",
    "The stars that we see at night are", "A cell divides when", "The team won the match in the last minute",
    "User: a table for two, please. Assistant:", "The price of a share rose because", "def add(a, b):",
)  # fmt: skip


@dataclass
class Answer:
    """What came of one request. ``whole``: a stream that ended as one should."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    chunks: list[Any] = field(default_factory=list)
    whole: bool = False
    first_s: float = 0.0
    took_s: float = 0.0

    @property
    def core(self) -> dict[str, Any]:
        found: dict[str, Any] = self.chunks[0]["choices"][0]["coreinfer"]
        return found

    @property
    def tokens(self) -> int:
        """As the server counts them."""
        used = self.chunks[-1].get("usage") if self.chunks else None
        return int(used["completion_tokens"]) if used else 0


async def ask(port: int, body: bytes, leave_after: int | None = None, path: str = "/v1/completions") -> Answer:
    """POST it; ``leave_after``: so many chunks, the connection is closed."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        made = await _head(reader)
        if made.headers.get("content-type", "").startswith("text/event-stream"):
            await _stream(reader, made, begun, leave_after)
        else:
            made.body = await reader.read()
        made.took_s = time.perf_counter() - begun
        return made
    finally:
        writer.close()


async def _head(reader: asyncio.StreamReader) -> Answer:
    status = int((await reader.readline()).split()[1])
    headers = dict[str, str]()
    while line := (await reader.readline()).strip():
        name, _, value = line.decode().partition(": ")
        headers[name.lower()] = value
    return Answer(status, headers)


async def _stream(reader: asyncio.StreamReader, made: Answer, begun: float, leave_after: int | None) -> None:
    async for line in _lines(reader):
        if line == b"[DONE]":
            made.whole = "error" not in made.chunks[-1]
            return
        made.chunks.append(json.loads(line))
        made.first_s = made.first_s or time.perf_counter() - begun
        if leave_after is not None and len(made.chunks) > leave_after:
            return


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The events' data, out of chunked transfer."""
    while line := await reader.readline():
        if line.startswith(b"data: "):
            yield line[6:].strip()


class Line(asyncio.Protocol):
    """A connection that stays, as OpenAI's clients keep theirs. It keeps what comes and looks at the end alone, so that
    of two cores none is the client's.
    """

    END = b"\r\n0\r\n\r\n"  # of chunked transfer

    def __init__(self) -> None:
        self.got, self.first_s = bytearray(), 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        if not self.first_s and b"data: " in data:
            self.first_s = time.perf_counter() - self.begun
        if self.got.endswith(self.END):
            self.whole.set_result(bytes(self.got))

    async def post(self, body: bytes) -> bytes:
        """A stream, head and all; ``first_s``: seconds to its first event."""
        self.got.clear()
        self.whole, self.begun, self.first_s = asyncio.get_running_loop().create_future(), time.perf_counter(), 0.0
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        made: bytes = await self.whole
        return made


def completion(number: int, tokens: int, **more: Any) -> bytes:
    """A body; another topic for each number."""
    prompt = f"{TOPICS[number % len(TOPICS)]} {number}"
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps({"prompt": prompt, "max_tokens": tokens, "temperature": 0.9, **usage, **more}).encode()


@dataclass(frozen=True)
class Process:
    """A server in a process of its own."""

    pid: int
    port: int

    @property
    def files(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def metrics(self) -> dict[str, float]:
        """By name and labels, as they are written."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def swap(self, path: Path) -> dict[str, Any]:
        body = json.dumps({"path": str(path)}).encode()
        url, head = f"http://127.0.0.1:{self.port}/admin/artifact", {"Content-Type": "application/json"}
        with urllib.request.urlopen(urllib.request.Request(url, body, head), timeout=60) as answer:
            made: dict[str, Any] = json.loads(answer.read())
        return made


@contextmanager
def started(log: Path, *options: object) -> Iterator[Process]:
    """``coreinfer serve`` with these options; it has to end well."""
    command = [sys.executable, str(ROOT / "cli.py"), "serve", "--port", "0", *map(str, options)]
    with log.open("w") as out:
        path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "PYTHONPATH": path})
        try:
            yield Process(process.pid, _port(process, log))
            process.terminate()
            assert process.wait(60) == 0, log.read_text()[-2000:]
        finally:
            process.kill()
            process.wait()


def _port(process: Any, log: Path) -> int:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        if "/v1\n" in (said := log.read_text()):
            return int(said[: said.index("/v1\n")].rsplit(":", 1)[1])
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-2000:])
