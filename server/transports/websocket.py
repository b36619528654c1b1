"""GraphQL over websocket: the graphql-transport-ws protocol, on the path of the HTTP view.

Many operations share a socket; each runs in a task of its own, which ends with the operation or the socket. A socket that says
nothing is pinged by a message of the protocol, and closed when that is not answered.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, aclosing, suppress
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

from server.access import Access, Asker, Headers, headers_of
from server.operations import Draining, Operations, Params, RequestRefused, read, written
from server.refusal import Refusal

PROTOCOL = "graphql-transport-ws"
INIT_SECONDS = 5.0
PING_SECONDS = 12.0
"""A ping after so long a silence of the client; closed after as much again."""
MOST_OPERATIONS = 1000
BAD_REQUEST, UNAUTHORIZED, FORBIDDEN, BAD_SUBPROTOCOL, TIMEOUT = 4400, 4401, 4403, 4406, 4408
TAKEN, TOO_MANY, INTERNAL, RESTART, TRY_AGAIN = 4409, 4429, 4500, 1012, 1013
_CODES = {401: UNAUTHORIZED, 403: FORBIDDEN, 429: TOO_MANY, 503: TRY_AGAIN}
"""How a refusal closes the socket; any other with BAD_REQUEST."""


class Closed(Exception):
    """The socket is to be closed with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


class GraphQLOverWebsocket:
    """The ASGI application of the path."""

    def __init__(self, operations: Operations, access: Access) -> None:
        self._operations = operations
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        headers = dict(scope["headers"])
        try:
            self._access.check_source(headers)
        except Refusal:
            await send({"type": "websocket.close", "code": FORBIDDEN})  # Before it is accepted: the answer is 403.
            return
        offered = scope.get("subprotocols", [])
        await send({"type": "websocket.accept", "subprotocol": PROTOCOL if PROTOCOL in offered else None})
        socket = _Socket(self._operations, self._access, scope, headers, receive, send)
        if PROTOCOL not in offered:
            await socket.close(BAD_SUBPROTOCOL, "Subprotocol not acceptable")
            return
        await socket.run()


class _Socket:
    def __init__(
        self, operations: Operations, access: Access, scope: Scope, headers: Headers, receive: Receive, send: Send
    ) -> None:
        self._operations = operations
        self._access = access
        self._scope, self._headers = scope, headers
        self._seats = ExitStack()
        self._receive = receive
        self._send = send
        self._initialised = False
        self._asker: Asker | None = None
        """Set when the connection is acknowledged."""
        self._running: dict[str, asyncio.Task[None]] = {}
        self._heard = 0.0
        self._closing: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        reading = asyncio.ensure_future(self._read())
        watching = asyncio.ensure_future(self._watch())
        try:
            ends: set[asyncio.Future[Any]] = {reading, watching, self._closing}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            tasks = [reading, watching, *self._running.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._seats.close()
        if self._closing.done():
            await self.close(self._closing.result().code, self._closing.result().reason)

    async def close(self, code: int, reason: str) -> None:
        with suppress(Exception):  # It may be gone.
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    def _close(self, code: int, reason: str) -> None:
        if not self._closing.done():
            self._closing.set_result(Closed(code, reason))

    async def _watch(self) -> None:
        """The client must begin, and must not fall silent."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(INIT_SECONDS)
        if self._asker is None:
            self._close(TIMEOUT, "Connection initialisation timeout")
        self._heard = max(self._heard, loop.time() - INIT_SECONDS)
        while True:
            silence = loop.time() - self._heard
            if silence >= 2 * PING_SECONDS:
                # Clients connect again after this code; after INTERNAL, one that was only asleep would not.
                self._close(TIMEOUT, "No answer to pings")
                return
            if silence >= PING_SECONDS:
                await self._tell({"type": "ping"})
            await asyncio.sleep(PING_SECONDS - silence % PING_SECONDS)

    async def _read(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                return
            self._heard = asyncio.get_running_loop().time()
            try:
                await self._take(_parsed(message.get("text")))
            except Closed as closed:
                self._close(closed.code, closed.reason)
                return

    async def _take(self, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "connection_init":
            if self._initialised:
                raise Closed(TOO_MANY, "Too many initialisation requests")
            self._initialised = True
            await self._admit(message.get("payload"))
            await self._tell({"type": "connection_ack"})
        elif kind == "ping":
            await self._tell({"type": "pong"})
        elif kind == "subscribe":
            self._subscribe(message)
        elif kind == "complete":
            running = self._running.pop(_id(message), None)
            if running is not None:
                running.cancel()
        elif kind != "pong":
            raise Closed(BAD_REQUEST, f"Unknown message type {str(kind)[:40]!r}")

    async def _admit(self, payload: Any) -> None:
        """By what connection_init says, and by the headers of the request where it says nothing."""
        try:
            asker = await self._access.asker(self._scope, {**self._headers, **headers_of(payload)})
            self._seats.enter_context(self._access.connections.one(asker.client))
        except Refusal as refusal:
            raise _closed(refusal) from None
        self._asker = asker

    def _subscribe(self, message: dict[str, Any]) -> None:
        id = _id(message)
        asker = self._asker
        if asker is None or not asker.stands():
            raise Closed(UNAUTHORIZED, "Unauthorized")
        if id in self._running:
            raise Closed(TAKEN, f"Subscriber for {id[:60]} already exists")
        if len(self._running) >= MOST_OPERATIONS:
            raise Closed(BAD_REQUEST, f"More than {MOST_OPERATIONS} operations at once")
        try:
            params = Params(message.get("payload"))
        except Refusal as refusal:
            raise _closed(refusal) from None
        task = asyncio.create_task(self._run(id, params, asker))
        self._running[id] = task
        task.add_done_callback(lambda done: self._ended(id, done))

    def _ended(self, id: str, task: asyncio.Task[None]) -> None:
        if self._running.get(id) is task:
            del self._running[id]
        if not task.cancelled() and task.exception() is not None:
            self._close(INTERNAL, "Internal server error")

    async def _run(self, id: str, params: Params, asker: Asker) -> None:
        document = self._operations.documents.get(params.query)
        try:
            if document.node is None:
                raise RequestRefused.of(document)
            if document.is_subscription(params.operation_name):
                with self._access.subscriptions.one(asker.client):
                    async with aclosing(self._operations.stream(document, params, asker, "websocket")) as stream:
                        async for told in stream:
                            await self._next(id, told.body)
            else:
                await self._next(id, (await self._operations.body(document, params, asker))[0])
        except (Refusal, RequestRefused) as refusal:
            await self._text(written({"id": id, "type": "error", "payload": refusal.errors}))
            return
        except Draining:
            self._close(RESTART, "The server stops: connect again")
            return
        self._running.pop(id, None)
        await self._tell({"id": id, "type": "complete"})

    async def _next(self, id: str, body: bytes) -> None:
        await self._text(b'{"id":%b,"type":"next","payload":%b}' % (orjson.dumps(id), body))

    async def _tell(self, message: dict[str, Any]) -> None:
        await self._text(orjson.dumps(message))

    async def _text(self, text: bytes) -> None:
        await self._send({"type": "websocket.send", "text": text.decode()})


def _closed(refusal: Refusal) -> Closed:
    return Closed(_CODES.get(refusal.status, BAD_REQUEST), f"{refusal.code}: {refusal}"[:120])


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        message = read((text or "").encode())
    except (Refusal, UnicodeEncodeError):
        message = None
    if not isinstance(message, dict):
        raise Closed(BAD_REQUEST, "Invalid message received: a JSON object is expected")
    return message


def _id(message: dict[str, Any]) -> str:
    id = message.get("id")
    if not isinstance(id, str) or not id:
        raise Closed(BAD_REQUEST, "Invalid message received: `id` must be a string that is not empty")
    return id
