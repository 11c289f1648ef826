"""From a socket to the last answer: what is made in which order, and how it ends."""

import asyncio
import functools
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import uvicorn

from coreinfer.decode.decoder import Decoder
from coreinfer.engine import Engine
from coreinfer.errors import CoreInferError, in_words
from coreinfer.models import context_length
from coreinfer.neurons import NeuronSet
from coreinfer.serve.app import make_app, swapped
from coreinfer.serve.connections import Connection
from coreinfer.serve.faults import Refused
from coreinfer.serve.guard import Guard
from coreinfer.serve.joining import GROUPS, ON_CPU, ON_GPU, choose
from coreinfer.serve.limits import Limits
from coreinfer.serve.mail import Mail
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.running import Pick
from coreinfer.serve.service import Service
from coreinfer.serve.versions import Version, opened
from coreinfer.serve.worker import Worker
from coreinfer.settings import Policy
from coreinfer.streaming import end_tokens

log = logging.getLogger("coreinfer.serve")
TURN_S = 0.0005


@dataclass(frozen=True)
class Serving:
    """How a server answers."""

    key: str | None = None
    policy: Policy = "auto"
    keep: float | None = None
    plain_chat: bool = False
    log_prompts: bool = False
    limits: Limits = field(default_factory=Limits)
    pick: Pick | None = None  # ``choose``, by what steps cost here


def made_of(engine: Engine, serving: Serving) -> tuple[Callable[[Mail, Metrics, Callable[[], Any]], Worker], Limits]:
    """Load the models and lay out the caches; the worker itself needs an event loop.

    Raises:
        CoreInferError: what ``Engine`` raises, a model that coreinfer's own steps do not know, or no memory.
    """
    if why := engine.runtimes.why_not({}):
        raise CoreInferError(f"a server decodes by coreinfer's own steps, which cannot serve {why}: use generate")
    context = min(context_length(engine.model), serving.limits.context)
    decoder = Decoder(engine.model, context)
    try:
        decoder.make_room(context, serving.limits.batch)
    except (RuntimeError, MemoryError) as error:
        raise CoreInferError(
            f"there is no memory for the caches of {serving.limits.batch} texts of {context} tokens "
            f"({in_words(error)}): lower --batch or --context"
        ) from error
    decoder.sets = GROUPS + 1
    limits = replace(serving.limits, context=decoder.context, max_tokens=min(serving.limits.max_tokens, context))
    version, ends = opened(engine, decoder), end_tokens({}, engine.model.generation_config)
    try:
        version.keep(serving.keep)
    except Refused as error:
        raise CoreInferError(f"--{error.message}") from error
    engine.match(["Warm."])  # loads the embedder
    layers, width = len(decoder.mlps), decoder.mlps[0].width
    half = NeuronSet((np.arange(width // 2, dtype=np.int32),) * layers, width)  # gathered, as a prompt's set is
    decoder.keep(half, serving.limits.batch)  # compiles, or loads what was
    pick = serving.pick or functools.partial(choose, cost=ON_GPU if decoder.on_gpu else ON_CPU)

    def worker(mail: Mail, metrics: Metrics, failed: Callable[[], Any]) -> Worker:
        return Worker(version, decoder, ends, limits, metrics, mail.flush, pick, failed)

    return worker, limits


class _Server(uvicorn.Server):
    """Signals are ours."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """One server. ``serve`` returns when it has ended; ``stop`` may be called from any thread."""

    def __init__(self, engine: Engine, sock: socket.socket, serving: Serving) -> None:
        self.sock, self.serving = sock, serving
        self.worker, self.limits = made_of(engine, serving)
        self.model = engine.artifact.manifest.model.id
        self.service: Service | None = None
        self._uvicorn: _Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, ready: Callable[[], Any] = lambda: None) -> None:
        """``ready`` is called when requests are answered.

        Raises:
            CoreInferError: the engine's thread failed, after which nothing can be.
        """
        self._loop = asyncio.get_running_loop()
        metrics, mail, how = Metrics(), Mail(self._loop), self.serving
        worker = self.worker(mail, metrics, self.stop)
        self.service = Service(
            worker, mail, self.limits, metrics, how.policy, how.keep, how.plain_chat, how.log_prompts
        )
        app = make_app(self.service)
        guard = Guard(app, how.key, self.limits, lambda: self._leaving, _counting(metrics))
        config = uvicorn.Config(
            guard, log_config=None, access_log=False, ws="none", server_header=False, lifespan="off",
            http=functools.partial(Connection, limits=self.limits),  # type: ignore[arg-type]
            timeout_graceful_shutdown=int(self.limits.grace_s), backlog=1024,
        )  # fmt: skip
        self._uvicorn = _Server(config)
        worker.start()
        self._loop.call_soon(ready)
        try:
            await self._uvicorn.serve([self.sock])
        finally:
            worker.end()
            await asyncio.to_thread(worker.join, self.limits.grace_s)
            worker.matching.end()  # it has, but for a turn that takes longer
        if worker.fault is not None:
            raise CoreInferError(
                f"the engine's thread failed ({in_words(worker.fault)}): see the log, and start the server again"
            )

    @property
    def _leaving(self) -> bool:
        return self.service is not None and self.service.leaving

    @property
    def version(self) -> Version:
        """What new prompts are answered with."""
        assert self.service is not None
        return self.service.worker.version

    def stop(self) -> None:
        """Take no more requests, finish those there are; a second call ends them."""
        assert self._uvicorn is not None
        assert self.service is not None
        if not self.service.leaving:
            log.warning("stopping once what has begun is done, at most %g s; again: at once", self.limits.grace_s)
        self._uvicorn.force_exit = self.service.leaving
        self.service.leaving = self._uvicorn.should_exit = True

    async def reload(self) -> None:
        """The artifact's folder anew; on failure the old one is served as before, and that is logged."""
        assert self.service is not None
        root = str(self.service.artifact.root)
        try:
            said = await swapped(self.service, root)
            log.warning("%s is served now, artifact %s", root, said["artifact"][:12])
        except Refused as refused:
            log.error("%s", refused.message)
        except Exception:
            log.exception("%s was not read again: what was served is served on", root)


async def until_stopped(server: Server, ready: Callable[[], Any]) -> None:
    """Serve until SIGTERM or Ctrl-C; SIGHUP loads the artifact's folder anew.

    Small compiled loops hold the interpreter's lock, and each send of the event loop lets it go: with the usual 5 ms
    until the next turn, eight streams' sends would take longer than a step.
    """
    sys.setswitchinterval(TURN_S)
    loop, tasks = asyncio.get_running_loop(), set[asyncio.Task[None]]()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    with suppress(AttributeError):  # not on Windows
        loop.add_signal_handler(signal.SIGHUP, lambda: tasks.add(loop.create_task(server.reload())))
    await server.serve(ready)


def _counting(metrics: Metrics) -> Callable[[str, int], None]:
    return lambda route, status: metrics.requests.labels(route, str(status)).inc()
