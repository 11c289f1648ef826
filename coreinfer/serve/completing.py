"""/v1/completions and /v1/chat/completions: a request becomes a job, its events an answer, whole or in a stream."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from coreinfer.serve.answers import Form, encoded, measured, predicted, said_in_headers, usage
from coreinfer.serve.faults import Refused
from coreinfer.serve.jobs import Asked, Began, Ended, Event, Failed, Job, Piece, Wish
from coreinfer.serve.logprobs import Chances
from coreinfer.serve.mail import Box
from coreinfer.serve.schemas import Chat, Completion
from coreinfer.serve.service import Service, while_heard

SLOW_S = 60.0  # that a reader may take beyond its request's own time


@dataclass
class Heard:
    """What came of one text so far."""

    text: str = ""
    found: list[Chances] = field(default_factory=list)


@dataclass
class Answering:
    """One request on its way to an answer. ``before``: what each prompt's texts begin with, its echo."""

    service: Service
    job: Job
    box: Box
    form: Form
    before: list[str]
    began: dict[int, Began] = field(default_factory=dict)

    async def next(self) -> Event:
        """
        Raises:
            Refused, Exception: whatever keeps the rest from coming.
        """
        return self._heard(await self.box.get())

    def _heard(self, event: Event) -> Event:
        if isinstance(event, Failed):
            raise event.error
        if isinstance(event, Began):
            self.began[event.number] = event
        return event

    def _there(self) -> list[Event]:
        """What has come already."""
        return [self.box.get_nowait() for _ in range(self.box.qsize())]

    @property
    def texts(self) -> int:
        return len(self.job.prompts) * self.job.n

    def core(self, number: int) -> dict[str, Any]:
        return predicted(self.began[number // self.job.n].prediction, self.job.wish, number)

    @property
    def digest(self) -> str:
        return self.began[min(self.began)].digest

    @property
    def headers(self) -> dict[str, str]:
        first = self.began[min(self.began)]
        lossless = {"X-Coreinfer-Lossless": str(self.job.wish.lossless).lower()}
        return said_in_headers(first.prediction, first.digest) | lossless

    def leave(self) -> None:
        self.job.leave()
        self.service.metrics.left.inc()

    async def whole(self) -> Response:
        heard = [Heard(self.before[number // self.job.n]) for number in range(self.texts)]
        choices, new = dict[int, Any](), 0
        while len(choices) < self.texts:
            event = await self.next()
            if isinstance(event, Piece):
                one = heard[event.number]
                one.text += event.text
                one.found += [event.chances] if event.chances else []
            elif isinstance(event, Ended):
                one, core = heard[event.number], self.core(event.number) | measured(event)
                choices[event.number] = self.form.choice(event.number, one.text, one.found, event.stopped, core)
                new += event.tokens
        used = usage(sum(asked.ids.shape[1] for asked in self.job.prompts), new)
        body = self.form.whole([choices[number] for number in sorted(choices)], used, self.digest)
        return JSONResponse(body, headers=self.headers)

    async def chunks(self, first: Event, with_usage: bool) -> AsyncIterator[list[str]]:
        """Of a stream that began with the event ``first``: those that are there at a time, in JSON.

        Raises:
            Refused, Exception: whatever keeps the rest from coming.
        """
        before, after = self.form.around(self.digest, with_usage)
        at, left, new, events = dict[int, int](), self.texts, 0, [first, *self._there()]
        while left:
            made = list[str]()
            for event in events:
                if isinstance(event, Failed):
                    yield made
                made += [before + encoded(choice) + after for choice in self._said(self._heard(event), at)]
                if isinstance(event, Ended):
                    new, left = new + event.tokens, left - 1
            yield made
            events = [await self.box.get(), *self._there()] if left else []
        if with_usage:
            prompts = sum(asked.ids.shape[1] for asked in self.job.prompts)
            yield [f'{before}], "usage": {encoded(usage(prompts, new))}}}']

    def _said(self, event: Event, at: dict[int, int]) -> list[Any]:
        """The choices that an event adds to; ``at``: characters of each so far."""
        if isinstance(event, Began):
            numbers = range(event.number * self.job.n, (event.number + 1) * self.job.n)
            text = self.before[event.number]
            at.update(dict.fromkeys(numbers, len(text)))
            return [self.form.delta(n, text, first=True) | {"coreinfer": self.core(n)} for n in numbers]
        if isinstance(event, Piece) and (event.text or event.chances):
            found = [event.chances] if event.chances else []
            begin = at[event.number]
            at[event.number] += len(event.text)
            several = {"coreinfer": {"tokens": event.tokens}} if event.tokens > 1 else {}
            return [self.form.delta(event.number, event.text, found, begin) | several]
        if isinstance(event, Ended):
            return [self.form.last(event.number, event.stopped, self.core(event.number) | measured(event))]
        return []


class Streamed(Response):
    """Server-sent events, as they are made; it ends with the client, or with its time."""

    media_type = "text/event-stream"

    def __init__(self, request: Request, answering: Answering, first: Event, with_usage: bool) -> None:
        super().__init__(None, headers={**answering.headers, "Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self.request, self.answering, self.first, self.with_usage = request, answering, first, with_usage
        del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        seconds = self.answering.service.limits.seconds + SLOW_S
        with suppress(TimeoutError):  # who reads so slowly has the connection closed
            await while_heard(self.request, asyncio.wait_for(self._send(send), seconds), self.answering.leave)

    async def _send(self, send: Send) -> None:
        try:
            async for chunks in self.answering.chunks(self.first, self.with_usage):
                await _events(send, chunks)
        except Exception as error:
            refused = error if isinstance(error, Refused) else Refused(500, "the generation failed: see the log")
            self.answering.job.gone = True
            await _events(send, [encoded(refused.body)])
        await _events(send, ["[DONE]"])
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _events(send: Send, data: list[str]) -> None:
    """In one message."""
    if data:
        body = "".join(f"data: {one}\n\n" for one in data).encode("utf-8", "replace")
        await send({"type": "http.response.body", "body": body, "more_body": True})


async def complete(service: Service, request: Request, body: Completion) -> Response:
    """A continuation of each prompt."""
    service.check_model(body.model)
    wish = service.wish_of(body, 16 if body.max_tokens is None else body.max_tokens, body.logprobs)
    given: Any = body.prompt
    many = isinstance(given, list) and not isinstance(given[0], int)
    asked = await service.encoded(given if many else [given], "prompt")
    before = [service.decode(one.ids[0].tolist()) if body.echo else "" for one in asked]
    if body.echo:
        texts = given if many else [given]
        before = [text if isinstance(text, str) else said for text, said in zip(texts, before, strict=True)]
    return await _answered(service, request, body, asked, wish, before)


async def chat(service: Service, request: Request, body: Chat) -> Response:
    """The assistant's next turn."""
    service.check_model(body.model)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    wish = service.wish_of(body, body.max_completion_tokens or body.max_tokens, logprobs)
    turns = service.turns_of(body.messages)
    wish = replace(wish, stops=(*wish.stops, *service.next_turns(turns)))
    asked = await service.encoded([turns], "messages")
    return await _answered(service, request, body, asked, wish, [""])


async def _answered(
    service: Service, request: Request, body: Completion | Chat, asked: list[Asked], wish: Wish, before: list[str]
) -> Response:
    box: Box = asyncio.Queue()
    job = Job(asked, body.n or 1, wish, service.mail.to(box), service.deadline())
    form = Form(isinstance(body, Chat), service.model, service.decode)
    answering = Answering(service, job, box, form, before)
    service.worker.submit(job)
    work: Any = answering.next() if body.stream else answering.whole()
    found: Any = await while_heard(request, work, answering.leave)
    if found is None:
        return Response(status_code=499)  # nobody reads it
    if not body.stream:
        return found  # type: ignore[no-any-return]
    return Streamed(request, answering, found, bool(body.stream_options and body.stream_options.include_usage))
