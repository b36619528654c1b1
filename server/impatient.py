"""uvicorn's connections, but one whose peer takes nothing for a while is dropped: its subscriptions and buffers go with it. And the
head of a response goes out with the first part of its body, which may be empty: a packet, a system call and a client woken less.

A peer that stops reading keeps the connection alive and its buffers full for ever; one that is gone without a word is found by the
keep-alive of TCP (server/serve.py) and, on a websocket, by pings (server/transports/websocket.py).
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

STUCK_SECONDS = 15.0
CLOSE_SECONDS = 3.0
"""So long a closed websocket waits for the peer's own closing frame."""


class _Impatient:
    """Mixed into a protocol: drops the connection when its full buffer has not drained for STUCK_SECONDS."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _stuck: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()  # type: ignore[misc]
        if self._stuck is None:
            self._stuck = self.loop.call_later(STUCK_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        self._calm()
        super().resume_writing()  # type: ignore[misc]

    def connection_lost(self, exc: Exception | None) -> None:
        self._calm()
        super().connection_lost(exc)  # type: ignore[misc]

    def _calm(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None


class _HeadWithBody:
    """The transport of one response, whose first write is its head (or lets the request's body come)."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        elif self._begun or data.startswith(b"HTTP/1.1 100 "):
            self._transport.write(data)
        else:
            self._head, self._begun = data, True

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        if self._head is not None:
            self._transport.write(self._head)
        self._transport.close()


class ImpatientHTTP(_Impatient, HttpToolsProtocol):
    def on_headers_complete(self) -> None:
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = _HeadWithBody(self.transport)  # type: ignore[assignment]


class ImpatientWebsocket(_Impatient, WebSocketsSansIOProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.close_timeout = CLOSE_SECONDS
