"""The routes: what comes in is checked by its schema, what goes wrong leaves in OpenAI's form."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coreinfer import page
from coreinfer.errors import CoreInferError
from coreinfer.serve import completing, looking
from coreinfer.serve.faults import Refused, malformed
from coreinfer.serve.schemas import Chat, Completion, CoreNeurons, Embeddings, Routed, Swap
from coreinfer.serve.service import Service
from coreinfer.serve.versions import successor


class Fault(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Faulty(BaseModel):
    """How every error looks."""

    error: Fault


log = logging.getLogger("coreinfer.serve")
FAULTS: Any = {code: {"model": Faulty} for code in (400, 401, 403, 404, 408, 413, 500, 503)}
EVENTS = {"schema": {"description": "Server-sent events: OpenAI's chunks in JSON, and [DONE] as the last."}}
STREAM: Any = {200: {"content": {"text/event-stream": EVENTS, "application/json": {}}}}
ARROW: Any = {200: {"content": {looking.ARROW: {"schema": {"type": "string"}}, "application/json": {}}}}


def make_app(service: Service) -> FastAPI:
    """Without a guard around it."""
    app = FastAPI(title="coreinfer", version="1", docs_url=None, redoc_url=None, responses=FAULTS)
    _look(app, service)
    _generate(app, service)
    _operate(app, service)
    _show(app, service)
    _fail(app)
    return app


def _generate(app: FastAPI, service: Service) -> None:
    @app.post("/v1/completions", responses=STREAM)
    async def completions(request: Request, body: Completion) -> Response:
        return await completing.complete(service, request, body)

    @app.post("/v1/chat/completions", responses=STREAM)
    async def chat_completions(request: Request, body: Chat) -> Response:
        return await completing.chat(service, request, body)


def _look(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return looking.models(service)

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        service.check_model(name)
        return looking.model(service)

    @app.post("/v1/core-neurons", responses=ARROW)
    async def core_neurons(request: Request, body: CoreNeurons) -> Response:
        return await looking.core_neurons(service, request, body)

    @app.post("/v1/route")
    async def route(request: Request, body: Routed) -> Response:
        return await looking.routed(service, request, body)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request, body: Embeddings) -> Response:
        return await looking.embeddings(service, request, body)


def _operate(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        if not service.worker.is_alive():
            raise Refused(503, "the engine has stopped: start the server again")
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> dict[str, str]:
        if service.leaving or not service.worker.is_alive():
            raise Refused(503, "the server is shutting down: come again")
        return {"status": "ready"}

    @app.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.post("/admin/artifact")
    async def swap(body: Swap) -> dict[str, str]:
        return await swapped(service, body.path)


async def swapped(service: Service, path: str) -> dict[str, str]:
    """Verify another artifact, then answer every new request with it; one at a time.

    Raises:
        Refused: it cannot be served; the old one still is.
    """
    async with service.swapping:
        old = service.worker.version
        try:
            version = await asyncio.to_thread(successor, old, path)
            version.keep(service.keep)
        except (CoreInferError, Refused) as error:
            service.metrics.swaps.labels("refused").inc()
            said = f"{error}; {old.artifact.root} is served as before"
            raise Refused(400, said, "path", "artifact_refused") from error
        service.worker.swap(version)
        service.metrics.swaps.labels("served").inc()
    return {"object": "artifact", "path": path, "artifact": version.digest, "before": old.digest}


def _show(app: FastAPI, service: Service) -> None:
    known, one = dict[str, dict[str, Any]](), asyncio.Lock()

    @app.get("/v1/clusters")
    async def clusters() -> Response:
        version = service.worker.version
        async with one:  # who comes while it is laid out waits for that
            if version.digest not in known:
                made = await asyncio.to_thread(page.overview, version.artifact)
                known.clear()
                known[version.digest] = made
            drawn = known[version.digest]
        return JSONResponse(drawn, headers={"X-Coreinfer-Artifact": version.digest})

    for path, (content, kind) in page.files().items():  # each by its name: nothing else is looked up
        app.add_api_route(f"/{'' if path == 'index.html' else path}", _sent(content, kind), include_in_schema=False)


def _sent(content: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, media_type=kind, headers={"Content-Security-Policy": page.CSP})

    return file


def _fail(app: FastAPI) -> None:
    def answer(refused: Refused) -> Response:
        return JSONResponse(refused.body, refused.status, refused.headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return answer(error)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        return answer(malformed(list(error.errors())))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path[:80]}"
        said = {
            404: f"there is no {what}: see /openapi.json",
            405: f"{what} is not a way to ask this: see /openapi.json",
        }
        refused = Refused(error.status_code, said.get(error.status_code, str(error.detail)))
        return JSONResponse(refused.body, refused.status, dict(error.headers or {}))

    @app.exception_handler(CoreInferError)
    async def unusable(_: Request, error: CoreInferError) -> Response:
        log.error("%s", error)
        return answer(Refused(500, str(error)))  # what was asked for was checked before: coming again helps nothing

    @app.exception_handler(Exception)
    async def broken(_: Request, error: Exception) -> Response:
        return answer(Refused(500, f"the server failed ({type(error).__name__}): see its log"))
