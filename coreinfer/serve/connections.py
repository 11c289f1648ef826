"""A connection: a request's head is there in time, and no more are open than may be."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from coreinfer.serve.limits import Limits

IDLE = 2  # times the requests that may be open: connections, those between two requests too


class Connection(H11Protocol):
    """Closed when a request that has begun to come, or the first one, has no whole head within ``upload_s``. From
    there on the time is the guard's; between two requests it is uvicorn's, shorter, until more bytes come.
    """

    def __init__(self, *given: Any, limits: Limits, **named: Any) -> None:
        super().__init__(*given, **named)
        self.limits = limits
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > IDLE * self.limits.connections:
            transport.abort()
        self._arm()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._arm()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._disarm()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _arm(self) -> None:
        """Bytes that trickle in do not put off the end."""
        if self._answering:
            self._disarm()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.limits.upload_s, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._answering:
            self.transport.close()
