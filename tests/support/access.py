"""Keys for tests, and one question asked over each transport."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from resolvers.access import Role, create_key
from tests.support.streams import Served

DENIED = ("UNAUTHENTICATED", "FORBIDDEN")


async def make_key(served: Served, role: Role, **more: Any) -> str:
    """Its secret. The server knows it when this returns."""
    _, secret = await create_key(served.services.core.pool, role.name.lower(), role, **more)
    await served.services.keys.read()
    return secret


def bearer(secret: str | None) -> dict[str, str]:
    return {} if secret is None else {"authorization": f"Bearer {secret}"}


def code_of(answer: dict[str, Any]) -> str | None:
    errors = answer.get("errors") or ()
    return next((e.get("extensions", {}).get("code", "none") for e in errors), None)


async def over_http(served: Served, secret: str | None, params: dict[str, Any], **headers: str) -> str | None:
    """The code of the first error; None when there is none."""
    async with httpx.AsyncClient(timeout=20) as http:
        response = await http.post(served.url, json=params, headers={**bearer(secret), **headers})
        return code_of(response.json())


async def over_sse(served: Served, secret: str | None, params: dict[str, Any], **headers: str) -> str | None:
    given = {**bearer(secret), "accept": "text/event-stream", **headers}
    async with httpx.AsyncClient(timeout=20) as http:
        async with http.stream("POST", served.url, json=params, headers=given) as response:
            if not response.headers["content-type"].startswith("text/event-stream"):
                return code_of(json.loads(await response.aread()))
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    return code_of(json.loads(line[6:]))
    raise AssertionError("the stream ended without a message")


@contextlib.asynccontextmanager
async def socket_of(
    served: Served, payload: dict[str, Any] | None = None, **headers: str
) -> AsyncIterator[ClientConnection]:
    """A websocket that has sent `connection_init`; what is answered is not read."""
    protocol = websockets.Subprotocol("graphql-transport-ws")
    async with websockets.connect(served.websocket, subprotocols=[protocol], additional_headers=headers) as ws:
        await ws.send(json.dumps({"type": "connection_init", "payload": payload}))
        yield ws


async def over_websocket(served: Served, secret: str | None, params: dict[str, Any], **headers: str) -> str | None:
    """The code of the error, of the operation or in the reason of the closing."""
    async with socket_of(served, bearer(secret), **headers) as ws:
        try:
            await asyncio.wait_for(ws.recv(), 10)
            await ws.send(json.dumps({"type": "subscribe", "id": "1", "payload": params}))
            while True:
                message = json.loads(await asyncio.wait_for(ws.recv(), 20))
                if message["type"] in ("next", "error"):
                    payload = message["payload"]
                    return code_of(payload if message["type"] == "next" else {"errors": payload})
        except websockets.ConnectionClosed as closed:
            return closed.rcvd.reason.partition(":")[0] if closed.rcvd else "gone"


TRANSPORTS = {"http": over_http, "sse": over_sse, "websocket": over_websocket}
