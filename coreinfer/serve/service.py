"""What the routes share: the worker, its limits, and how a request's prompts become tokens."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from threading import Lock
from typing import Any, TypeVar

import torch

from coreinfer.artifact import Artifact
from coreinfer.decode.continuing import Sampling
from coreinfer.errors import CoreInferError
from coreinfer.prompts import Prompt, next_turns, words_of, words_of_tokens
from coreinfer.serve.faults import Refused
from coreinfer.serve.jobs import Asked, Wish
from coreinfer.serve.limits import Limits
from coreinfer.serve.mail import Mail
from coreinfer.serve.metrics import Metrics
from coreinfer.serve.schemas import Core, Generating, Turn
from coreinfer.serve.worker import Worker
from coreinfer.settings import Policy

log = logging.getLogger("coreinfer.serve")
T = TypeVar("T")


class Service:
    """Of one model. ``policy`` and ``keep`` are of requests that say none; ``plain_chat``: turns become ``User: …
    Assistant:`` where the model has no chat template.
    """

    def __init__(
        self, worker: Worker, mail: Mail, limits: Limits, metrics: Metrics, policy: Policy = "auto",
        keep: float | None = None, plain_chat: bool = False, log_prompts: bool = False,
    ) -> None:  # fmt: skip
        self.worker, self.mail, self.limits, self.metrics = worker, mail, limits, metrics
        self.policy, self.keep, self.plain_chat, self.log_prompts = policy, keep, plain_chat, log_prompts
        self.leaving = False  # whether no more requests are taken
        self.swapping = asyncio.Lock()
        self._encoding = Lock()

    @property
    def artifact(self) -> Artifact:
        return self.worker.version.artifact

    @property
    def model(self) -> str:
        return self.artifact.manifest.model.id

    @property
    def chats(self) -> bool:
        return self.plain_chat or bool(getattr(self.worker.version.engine.tokenizer, "chat_template", None))

    def check_model(self, name: str | None) -> None:
        if name not in (None, self.model):
            raise Refused(
                404, f"the model is {str(name)[:80]!r}, here is {self.model!r}: give that", "model", "model_not_found"
            )

    def policy_of(self, body: Core) -> tuple[Policy, float | None]:
        """The policy and keep that a request asks for, or else the server.

        Raises:
            Refused: a keep below all that were measured.
        """
        keep = self.keep if body.keep is None else body.keep
        self.worker.version.keep(keep)
        return body.policy or self.policy, keep

    def wish_of(self, body: Generating, max_tokens: int | None, logprobs: int | None) -> Wish:
        """What a request asks for, by our defaults where it says nothing."""
        most = self.limits.max_tokens
        if max_tokens is not None and max_tokens > most:
            raise Refused(400, f"max_tokens is {max_tokens}: at most {most} are made here", "max_tokens")
        heat = 1.0 if body.temperature is None else body.temperature
        if 0 < heat < 0.01:
            raise Refused(400, f"temperature is {heat:g}: give 0 for greedy, or 0.01 to 2", "temperature")
        top_p = 1.0 if body.top_p is None else body.top_p
        if self.worker.running.table.decoder.on_gpu and (top_p < 1 or logprobs is not None):
            name = "logprobs" if logprobs is not None else "top_p"
            raise Refused(400, f"{name}: a GPU's steps do not have them: leave it out", name)
        policy, keep = self.policy_of(body)
        stops = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
        seed = random.getrandbits(31) if body.seed is None else body.seed
        sampling = Sampling(heat, top_p)
        return Wish(policy, keep, body.lossless, sampling, seed, max_tokens or most, stops, logprobs)

    def turns_of(self, turns: Sequence[Turn]) -> list[dict[str, str]]:
        """
        Raises:
            Refused: the model has no chat template.
        """
        if not self.chats:
            raise Refused(
                400, f"the model {self.model!r} has no chat template: use /v1/completions, or start the server with "
                "--plain-chat", "messages", "no_chat_template",
            )  # fmt: skip
        return [turn.plain for turn in turns]

    def next_turns(self, turns: list[dict[str, str]]) -> tuple[str, ...]:
        """What ends an answer, as ``prompts.next_turns``."""
        return next_turns(self.worker.version.engine.tokenizer, turns)

    async def encoded(self, prompts: Sequence[Prompt | list[int]], param: str) -> list[Asked]:
        """Each in tokens, off the event loop.

        Raises:
            Refused: one that is empty or does not fit.
        """
        return await asyncio.to_thread(lambda: [self._encode(prompt, param) for prompt in prompts])

    def _encode(self, prompt: Prompt | list[int], param: str) -> Asked:
        engine, most = self.worker.version.engine, self.limits.context
        tokens = prompt if isinstance(prompt, list) and isinstance(prompt[0], int) else None
        try:
            with self._encoding:
                if tokens is None:
                    ids, words = engine.encode(prompt), words_of(prompt)  # type: ignore[arg-type]
                else:
                    ids, words = self._known(tokens), words_of_tokens(engine.tokenizer, [tokens])[0]
        except CoreInferError as error:
            code = "context_length_exceeded" if "context holds" in str(error) else None
            raise Refused(400, str(error), param, code) from error
        if ids.shape[1] >= most:
            raise Refused(
                400, f"the prompt has {ids.shape[1]} tokens, the server's context holds {most}: shorten it", param,
                "context_length_exceeded",
            )  # fmt: skip
        if self.log_prompts:
            log.info("prompt %r", words)
        return Asked(ids, words)

    def _known(self, tokens: list[int]) -> torch.Tensor:
        model: Any = self.worker.version.engine.model
        known = len(model.get_input_embeddings().weight)
        if odd := [token for token in tokens if token >= known]:
            raise CoreInferError(f"the prompt holds token {odd[0]}, the model knows {known}: leave it out")
        return torch.tensor([tokens], device=model.device)

    def decode(self, tokens: list[int]) -> str:
        return str(self.worker.version.engine.tokenizer.decode(tokens))

    async def ask(self, *parts: Callable[[], T]) -> list[T]:
        """What each comes to in the engine's thread, where they wait as texts do; cancelled, what is left is not done.

        Raises:
            Refused: too many wait, or for too long.
        """
        return await asyncio.wrap_future(self.worker.ask(parts, self.deadline()))

    async def asked_by(self, request: Any, *parts: Callable[[], T]) -> list[T] | None:
        """As ``ask``, for as long as the client is there; None once it has left."""
        return await while_heard(request, self.ask(*parts), self.metrics.left.inc)

    def deadline(self) -> float:
        return time.monotonic() + self.limits.seconds


async def while_heard(request: Any, work: Awaitable[T], leave: Callable[[], Any]) -> T | None:
    """What ``work`` comes to; None once the client has left, which ``leave`` is told of."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        if not task.done():
            leave()
        for one in (task, gone):
            one.cancel()


async def _left(request: Any) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
