"""A small server for the page's tests: the routes that it asks for, by the engine itself, and faults on demand."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from coreinfer import Engine
from coreinfer.generation import Generation
from coreinfer.output import prediction_row
from coreinfer.page import CSP, compare, files

JSON = "application/json"


@dataclass
class Standing:
    """The server as a test sees it. ``key``: wanted if there is one; ``faults``: what the next answers are instead, as
    (status, message, seconds to wait); ``cut``: streams end after so many pieces; ``asked``: paths, as they came.
    """

    engine: Engine
    overview: dict[str, Any]
    key: str = ""
    faults: list[tuple[int, str, int]] = field(default_factory=list)
    cut: int = 0
    artifact: str = "a" * 64
    pace: float = 0.0
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""
    one: threading.Lock = field(default_factory=threading.Lock)

    def landed(self, body: dict[str, Any]) -> dict[str, Any]:
        with self.one:
            match = self.engine.match([body["prompt"]])[0]
            found = self.engine.predict(body["prompt"], body.get("policy", "auto"), body.get("keep"), match)
        near = zip(match.clusters.tolist(), match.similarities.tolist(), strict=True)
        return prediction_row(body["prompt"], found, False) | {
            "artifact": self.artifact,
            "strong_from": self.engine.artifact.policy.strong,
            "nearest": [{"cluster": cluster, "similarity": similarity} for cluster, similarity in near],
            "compare": compare(self.engine.artifact, found),
        }

    def pieces(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Chunks as they are made."""
        how = {"policy": body["policy"], "keep": body.get("keep"), "max_new_tokens": body["max_tokens"]}
        for piece in self.engine.stream(body["prompt"], **how):
            if isinstance(piece, Generation):
                told = prediction_row(body["prompt"], piece.prediction, False)
                told |= {"tokens_per_second": piece.tokens_per_second, "first_token_s": piece.first_token_s}
                yield {"choices": [{"text": "", "finish_reason": "length", "coreinfer": told}]}
            else:
                time.sleep(self.pace)
                yield {"choices": [{"text": piece}]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    standing: Standing

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.standing.asked.append(self.path)
        path = self.path.lstrip("/") or "index.html"
        if path in files():
            content, kind = files()[path]
            self.answer(200, content, kind, {"Content-Security-Policy": CSP})
        elif not self.refused():
            models = {"data": [{"id": "demo", "artifact": self.standing.artifact}]}
            known = {"v1/clusters": self.standing.overview, "v1/models": models}
            self.say(200 if path in known else 404, known.get(path) or {"error": {"message": f"no {path}"}})

    def do_POST(self) -> None:
        self.standing.asked.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.standing.bodies.append(body)
        if self.refused():
            return
        if self.path == "/v1/core-neurons":
            self.say(200, self.standing.landed(body))
        else:
            self.stream(body)

    def refused(self) -> bool:
        standing = self.standing
        if standing.key and self.headers.get("Authorization") != f"Bearer {standing.key}":
            self.say(401, {"error": {"message": "no key"}})
            return True
        if not standing.faults:
            return False
        status, message, wait = standing.faults.pop(0)
        self.say(status, {"error": {"message": message}}, {"Retry-After": str(wait)} if wait else {})
        return True

    def stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            with self.standing.one:
                for number, piece in enumerate(self.standing.pieces(body)):
                    if self.standing.cut and number >= self.standing.cut:
                        return
                    self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                    self.wfile.flush()
                self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return  # the reader has gone, as a test wants it

    def say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self.answer(status, json.dumps(body).encode(), JSON, headers or {})

    def answer(self, status: int, content: bytes, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(engine: Engine, overview: dict[str, Any]) -> Iterator[Standing]:
    """On a free port of this machine, until the end of the block."""
    standing = Standing(engine, overview)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"standing": standing}))
    server.daemon_threads = True
    standing.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield standing
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
