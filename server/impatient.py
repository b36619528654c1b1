"""uvicorn's connections, but one whose peer takes nothing for a while is dropped: its subscriptions and buffers go with it.

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


class ImpatientHTTP(_Impatient, HttpToolsProtocol):
    pass


class ImpatientWebsocket(_Impatient, WebSocketsSansIOProtocol):
    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.close_timeout = CLOSE_SECONDS
