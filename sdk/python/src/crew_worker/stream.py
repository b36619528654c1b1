"""Streams: the results of one GraphQL subscription, over a websocket (graphql-transport-ws) or server-sent events.

Each is a context manager that is entered once the stream stands, and an iterator of the data that comes. Both raise
Broken when it does not open or ends, also by silence, and Refused when the server will not have the subscription.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.typing import Subprotocol

from crew_worker.api import Api, Json, decode, encode, is_loopback, refusal, request_body
from crew_worker.http import HttpError

OPEN_SECONDS = 10.0
# A quiet stream carries an empty payload after so long.
QUIET_SECONDS = 10.0


class Broken(Exception):
    """The stream is no more."""


class Open(Protocol):
    """Opens one."""

    def __call__(
        self, api: Api, document: str, variables: Json
    ) -> AbstractAsyncContextManager[AsyncIterator[Json]]: ...


@contextlib.asynccontextmanager
async def websocket(api: Api, document: str, variables: Json) -> AsyncIterator[AsyncIterator[Json]]:
    """Over a websocket. A watchdog notices a dead line within 20 s: the server says something every 10."""
    url = "ws" + api.url.removeprefix("http")
    keep = {name: value for name, value in api.headers.items() if name in ("authorization", "crew-namespace")}
    try:
        async with connect(
            url,
            subprotocols=[Subprotocol("graphql-transport-ws")],
            additional_headers=keep,
            open_timeout=OPEN_SECONDS,
            ping_interval=None,
            close_timeout=1,
            max_size=None,
            proxy=None if is_loopback(api.url) else True,
        ) as socket:
            payload = {"authorization": api.headers["authorization"]} if api.key else {}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            async with asyncio.timeout(OPEN_SECONDS):
                while (await _message(socket)).get("type") != "connection_ack":
                    pass
            subscription = {"query": document, "variables": variables}
            await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": subscription}))
            yield _socket_data(socket, QUIET_SECONDS + api.silence)
            await socket.send(json.dumps({"id": "1", "type": "complete"}))
    except (WebSocketException, OSError, TimeoutError) as error:
        raise Broken(f"websocket: {type(error).__name__} {error}".strip()) from error


async def _message(socket: ClientConnection) -> Json:
    try:
        said: Json = decode(await socket.recv())
    except ValueError as error:
        raise Broken("websocket: what came is no JSON") from error
    return said


async def _socket_data(socket: ClientConnection, silence: float) -> AsyncIterator[Json]:
    while True:
        async with asyncio.timeout(silence):
            said = await _message(socket)
            while said.get("type") in ("ping", "pong"):
                if said["type"] == "ping":
                    await socket.send(json.dumps({"type": "pong"}))
                said = await _message(socket)
        match said.get("type"):
            case "next":
                yield _data(said["payload"])
            case "error":
                raise refusal(said["payload"][0])
            case "complete":
                raise Broken("websocket: the server ended the stream")


@contextlib.asynccontextmanager
async def sse(api: Api, document: str, variables: Json) -> AsyncIterator[AsyncIterator[Json]]:
    """Over server-sent events, distinct connections mode. A watchdog notices a line that says nothing."""
    body = request_body(document, {name: encode(value) for name, value in variables.items()})
    headers = {"accept": "text/event-stream"}
    try:
        async with api.http.stream(body, headers, opening=OPEN_SECONDS, silence=QUIET_SECONDS + api.silence) as answer:
            head, parts = answer
            kind = head.headers.get("content-type", "")
            if head.status != 200 or not kind.startswith("text/event-stream"):
                raise Broken(f"sse: status {head.status}, {kind or 'no content type'}")
            yield _event_data(parts)
    except HttpError as error:
        raise Broken(f"sse: {error}") from error


async def _event_data(parts: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    event, data, rest = "", [], b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in (line.removesuffix(b"\r").decode("utf-8", "replace") for line in lines):
            name, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if name == "event":
                event = value
            elif name == "data":
                data.append(value)
            elif not line:
                if event == "complete":
                    raise Broken("sse: the server ended the stream")
                if event == "next" and data:
                    yield _data(decode("\n".join(data)))
                event, data = "", []
    raise Broken("sse: the line was closed")


def _data(result: Any) -> Json:
    if result.get("errors"):
        raise refusal(result["errors"][0])
    data: Json = result["data"]
    return data
