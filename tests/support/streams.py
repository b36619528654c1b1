"""Subscriptions: read in this process, or over a real socket of a real server that runs here too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import websockets
from websockets.asyncio.client import ClientConnection

from resolvers.access import ANYONE
from resolvers.core import Rhythm
from schema.root import schema
from server.access import Asker
from server.app import create_app
from server.operations import Operations, Params, RequestRefused
from server.serve import Server, listen, uvicorn_config
from server.settings import Settings
from tests.support.crew import Crew, Refused

EVENTS = (
    "subscription($after: Cursor, $filter: TaskEventFilter) { taskEvents(after: $after, filter: $filter) "
    "{ cursor events { kind at taskId groupId channel workgroup state attempt workerId progress until } } }"
)
POLL = (
    "query($after: Cursor, $filter: TaskEventFilter, $limit: Int, $waitSeconds: Float) "
    "{ taskEvents(after: $after, filter: $filter, limit: $limit, waitSeconds: $waitSeconds) "
    "{ cursor events { kind at taskId groupId channel workgroup state attempt workerId progress until } } }"
)
PUSH = (
    "subscription($input: ClaimedTasksInput!) { claimedTasks(input: $input) "
    "{ leases { id attempt expiresAt task { id name channel input } } } }"
)


async def poll(crew: Crew, after: str | None = None, **more: Any) -> dict[str, Any]:
    """One long-poll call: {cursor, events}."""
    return (await crew.ask(POLL, after=after, **more))["taskEvents"]


async def now(crew: Crew) -> str:
    return (await poll(crew))["cursor"]


@dataclass
class Reader:
    """One subscription, message by message."""

    messages: Any
    field: str

    async def next(self, seconds: float = 10) -> dict[str, Any]:
        """The field of the next message. Raises Refused for errors and StopAsyncIteration at the end."""
        try:
            told = await asyncio.wait_for(anext(self.messages), seconds)
        except RequestRefused as refused:
            raise Refused(refused.errors, None) from None
        answer = json.loads(told.body)
        if "errors" in answer:
            raise Refused(answer["errors"], answer.get("data"))
        return answer["data"][self.field]

    async def events(self, n: int, seconds: float = 10) -> list[dict[str, Any]]:
        """The next events, at least so many."""
        found: list[dict[str, Any]] = []
        while len(found) < n:
            found += (await self.next(seconds))["events"]
        return found


@contextlib.asynccontextmanager
async def reading(crew: Crew, query: str, **variables: Any) -> AsyncIterator[Reader]:
    """A subscription in this process, without a socket."""
    operations = Operations(schema._schema, crew.services.core.limits)
    params = Params({"query": query, "variables": variables})
    document = operations.documents.get(query)
    stream = operations.stream(document, params, Asker(crew.services, ANYONE, ""), "websocket")
    async with contextlib.aclosing(stream):
        yield Reader(stream, "claimedTasks" if "claimedTasks" in query else "taskEvents")


@contextlib.asynccontextmanager
async def pushed(crew: Crew, worker: str = "w", **more: Any) -> AsyncIterator[Reader]:
    """Leases pushed to a worker of channel `c`."""
    async with reading(crew, PUSH, input={"workerId": worker, "channels": ["c"], **more}) as reader:
        yield reader


@dataclass
class Served:
    """A real server in this process."""

    host: str
    port: int
    services: Any

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/graphql"

    @property
    def websocket(self) -> str:
        return f"ws://{self.host}:{self.port}/graphql"


@contextlib.asynccontextmanager
async def served(dsn: str, *, rhythm: Rhythm | None = None, **settings: Any) -> AsyncIterator[Served]:
    """uvicorn, as `crew serve` sets it up, on a free port unless `port` is given."""
    given = Settings(**{"port": 0, **settings})
    app = create_app(given, dsn, rhythm)
    with contextlib.closing(listen(given)) as listener:
        config = uvicorn_config(app, given)
        config.loop = "none"
        server = _InThisLoop(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                assert not running.done(), running.exception()
                await asyncio.sleep(0.01)
            host, port = listener.getsockname()[:2]
            yield Served(host, port, app.state.services)
        finally:
            app.state.services.drain()
            server.should_exit = True
            await running


class _InThisLoop(Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Any:
        yield


@contextlib.asynccontextmanager
async def connected(served: Served, *, init: bool = True) -> AsyncIterator[ClientConnection]:
    """A websocket of the graphql-transport-ws protocol; acknowledged."""
    async with websockets.connect(
        served.websocket, subprotocols=[websockets.Subprotocol("graphql-transport-ws")]
    ) as ws:
        if init:
            await ws.send('{"type":"connection_init"}')
            assert json.loads(await ws.recv()) == {"type": "connection_ack"}
        yield ws


def abrupt(ws: ClientConnection) -> None:
    """The socket is gone without a closing handshake (RST)."""
    raw = ws.transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    ws.transport.abort()
