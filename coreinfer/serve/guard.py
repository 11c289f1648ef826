"""Before any route: who asks, how much at a time, and how large; one request id and one line of log each.

Without a key the server is its own machine's: then a Host that is no loopback name is refused, since a page elsewhere
could make a browser send one (DNS rebinding), and so is what a browser says to come from another origin.
"""

import asyncio
import base64
import binascii
import hmac
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coreinfer.serve.faults import Refused
from coreinfer.serve.limits import LOOPBACK, Limits

log = logging.getLogger("coreinfer.serve")
OPEN = "/health"
PATIENCE = 8  # times the largest body: so much is read before a connection is closed
HOSTS = tuple(f"[{name}]" if ":" in name else name for name in LOOPBACK)  # as a Host header has them


class Guard:
    """ASGI, around the app. ``leaving``: whether the server takes no more; ``counted``: is told route and status."""

    def __init__(
        self, app: ASGIApp, key: str | None, limits: Limits, leaving: Callable[[], bool],
        counted: Callable[[str, int], Any],
    ) -> None:  # fmt: skip
        self.app, self.key, self.limits, self.leaving, self.counted = app, key, limits, leaving, counted
        self.busy = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name, begun, status = uuid.uuid4().hex, time.monotonic(), [500]

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                made = MutableHeaders(scope=message)
                made["X-Request-Id"], made["X-Content-Type-Options"] = name, "nosniff"
            await send(message)

        self.busy += 1
        try:
            await self._answer(scope, receive, sending)
        finally:
            self.busy -= 1
            route = getattr(scope.get("route"), "path", "other")
            self.counted(route, status[0])
            took = time.monotonic() - begun
            log.info("%s %s %r %d %.3f s", name[:8], scope["method"], scope["path"][:80], status[0], took)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
            body = await asyncio.wait_for(self._body(scope, receive), self.limits.upload_s)
        except TimeoutError:
            said = f"the body was not there within {self.limits.upload_s:g} s: send it at once"
            await _refuse(Refused(408, said), scope, receive, send)
        except Refused as refused:
            await _refuse(refused, scope, receive, send)
        else:
            if body is not None:
                await self.app(scope, _replayed(body, receive), send)

    def _admit(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        if self.key is None and _host(headers.get("host", "")) not in HOSTS:
            raise Refused(403, "the Host is not this machine's own name: use 127.0.0.1, or start the server with a key")
        if scope["path"] == OPEN and scope["method"] == "GET":
            return
        if self.key is None and _foreign(headers):
            raise Refused(403, "a page of another origin asks: start the server with a key, which such a page can send")
        if self.key is not None and not _knows(headers.get("authorization", ""), self.key):
            raise Refused(
                401, "the API key is missing or wrong: send Authorization: Bearer KEY", None, "invalid_api_key"
            )
        if self.leaving():
            raise Refused(503, "the server is shutting down: come again")
        if self.busy > self.limits.connections:
            raise Refused(503, f"{self.limits.connections} requests are open, as many as may be: come again")

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """None where the client left before all was there. What is too large is read on for a while and thrown away:
        who still writes when the connection closes never sees why.

        Raises:
            Refused: more than may be.
        """
        most = self.limits.body
        said = Headers(scope=scope).get("content-length", "")
        parts, size, more = list[bytes](), 0, not (said.isdecimal() and int(said) > PATIENCE * most)
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            if size <= most:
                parts.append(part)
            more = message.get("more_body", False) and size <= PATIENCE * most
        if size > most or (said.isdecimal() and int(said) > most):
            raise Refused(413, f"the body has {said or 'more'} bytes, at most {most} are taken: send less")
        return b"".join(parts)


def _host(given: str) -> str:
    """Without its port."""
    return given if given.endswith("]") else given.rsplit(":", 1)[0] if ":" in given else given


def _foreign(headers: Headers) -> bool:
    """Whether a browser asks for a page that came from elsewhere."""
    origin = headers.get("origin")
    elsewhere = origin is not None and origin.partition("://")[2] != headers.get("host")
    return elsewhere or headers.get("sec-fetch-site") == "cross-site"


def _knows(given: str, key: str) -> bool:
    """The key as a bearer's token, or as the password that a browser asks for."""
    kind, _, word = given.partition(" ")
    if kind.lower() == "basic":
        try:
            word = base64.b64decode(word, validate=True).decode("utf-8", "replace").partition(":")[2]
        except binascii.Error:
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(word.strip().encode(), key.encode())


def _replayed(body: bytes, receive: Receive) -> Receive:
    left: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return left.pop() if left else await receive()

    return again


async def _refuse(refused: Refused, scope: Scope, receive: Receive, send: Send) -> None:
    """What is left of the body stays unread: the connection closes."""
    headers = {**refused.headers, "Connection": "close"} if refused.status in (408, 413) else refused.headers
    await JSONResponse(refused.body, refused.status, headers)(scope, receive, send)
