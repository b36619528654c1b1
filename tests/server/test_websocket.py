"""The graphql-transport-ws protocol, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from tests.support.streams import EVENTS, Served, connected, served
from tests.support.wait import until


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn) as server:
        yield server


async def say(ws: ClientConnection, **message: Any) -> None:
    await ws.send(json.dumps(message))


async def hear(ws: ClientConnection) -> dict[str, Any]:
    return json.loads(await asyncio.wait_for(ws.recv(), 10))


async def subscribe(ws: ClientConnection, id: str, query: str, **variables: Any) -> None:
    await say(ws, type="subscribe", id=id, payload={"query": query, "variables": variables})


async def ask(server: Served, query: str) -> Any:
    async with httpx.AsyncClient() as http:
        return (await http.post(server.url, json={"query": query})).json()["data"]


CREATE = 'mutation { createTaskGroup(input: {name: "g", tasks: [{name: "a", channel: "c"}]}) { taskGroup { id } } }'


async def test_a_subscription_is_told_what_happens_until_it_is_completed(server_here: Served) -> None:
    async with connected(server_here) as ws:
        await subscribe(ws, "1", EVENTS)
        first = await hear(ws)
        assert (first["id"], first["type"]) == ("1", "next")
        await ask(server_here, CREATE)
        told = (await hear(ws))["payload"]["data"]["taskEvents"]
        assert [e["kind"] for e in told["events"]] == ["GROUP_CREATED", "CREATED"]
        await say(ws, type="complete", id="1")
        await until(lambda: _no_listener(server_here))
        await subscribe(ws, "1", EVENTS, after=told["cursor"])
        assert (await hear(ws))["payload"]["data"]["taskEvents"]["events"] == []


async def _no_listener(server: Served) -> bool:
    return server.services.log.listeners == 0


async def test_queries_and_mutations_are_answered_and_completed(server_here: Served) -> None:
    async with connected(server_here) as ws:
        await subscribe(ws, "m", CREATE)
        assert "id" in (await hear(ws))["payload"]["data"]["createTaskGroup"]["taskGroup"]
        assert await hear(ws) == {"id": "m", "type": "complete"}
        await subscribe(ws, "q", "{ tasks { nodes { name } } }")
        assert (await hear(ws))["payload"] == {"data": {"tasks": {"nodes": [{"name": "a"}]}}}
        assert await hear(ws) == {"id": "q", "type": "complete"}


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("subscription { nonsense }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription {", {}, "GRAPHQL_PARSE_FAILED"),
        ("{ nonsense }", {}, "GRAPHQL_VALIDATION_FAILED"),
        (EVENTS, {"after": "x"}, "BAD_INPUT"),
        (EVENTS, {"after": 5}, "BAD_INPUT"),
        (EVENTS, {"filter": {"kinds": ["NONE"]}}, "BAD_INPUT"),
    ],
)
async def test_what_is_refused_is_an_error_of_its_operation_alone(
    server_here: Served, query: str, variables: dict[str, Any], code: str
) -> None:
    async with connected(server_here) as ws:
        await subscribe(ws, "1", query, **variables)
        message = await hear(ws)
        assert (message["id"], message["type"]) == ("1", "error")
        assert message["payload"][0]["extensions"]["code"] == code
        await subscribe(ws, "1", "{ server { version } }")
        assert (await hear(ws))["type"] == "next"


async def test_a_ping_is_answered(server_here: Served) -> None:
    async with connected(server_here, init=False) as ws:
        await say(ws, type="ping")
        assert await hear(ws) == {"type": "pong"}


INIT = {"type": "connection_init"}
SUBSCRIBE = {"type": "subscribe", "id": "1", "payload": {"query": EVENTS}}


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([SUBSCRIBE], 4401),
        ([INIT, INIT], 4429),
        ([INIT, SUBSCRIBE, SUBSCRIBE], 4409),
        ([INIT, {"type": "nonsense"}], 4400),
        ([INIT, {"type": "subscribe", "payload": {"query": "{ a }"}}], 4400),
        ([INIT, {"type": "subscribe", "id": "", "payload": {"query": "{ a }"}}], 4400),
        ([INIT, {"type": "subscribe", "id": "1"}], 4400),
        ([INIT, {"type": "subscribe", "id": "1", "payload": {"query": 1}}], 4400),
        ([INIT, []], 4400),
        ([INIT, "text"], 4400),
    ],
)
async def test_what_the_protocol_forbids_closes_the_socket_with_its_code(
    server_here: Served, messages: list[Any], code: int
) -> None:
    async with connected(server_here, init=False) as ws:
        for message in messages:
            await ws.send(json.dumps(message))
        await asyncio.wait_for(ws.wait_closed(), 10)
        assert ws.close_code == code
    await until(lambda: _no_listener(server_here))


async def test_what_is_no_json_closes_the_socket(server_here: Served) -> None:
    async with connected(server_here) as ws:
        await ws.send("{")
        await ws.wait_closed()
        assert ws.close_code == 4400


async def test_who_does_not_begin_is_closed(server_here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transports.websocket.INIT_SECONDS", 0.1)
    async with connected(server_here, init=False) as ws:
        await asyncio.wait_for(ws.wait_closed(), 5)
        assert ws.close_code == 4408


async def test_who_is_silent_is_pinged_and_closed_when_it_does_not_answer(
    server_here: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transports.websocket.INIT_SECONDS", 0.05)
    monkeypatch.setattr("server.transports.websocket.PING_SECONDS", 0.2)
    async with connected(server_here) as ws:
        for _ in range(3):
            assert await hear(ws) == {"type": "ping"}
            await say(ws, type="pong")
        assert await hear(ws) == {"type": "ping"}
        await asyncio.wait_for(ws.wait_closed(), 5)
        assert ws.close_code == 4408


async def test_another_subprotocol_is_not_spoken(server_here: Served) -> None:
    async with websockets.connect(server_here.websocket) as ws:
        await asyncio.wait_for(ws.wait_closed(), 5)
        assert ws.close_code == 4406


async def test_a_server_that_stops_says_come_again(dsn: str) -> None:
    async with served(dsn) as server, connected(server) as ws:
        await subscribe(ws, "1", EVENTS)
        await hear(ws)
        server.services.drain()
        await asyncio.wait_for(ws.wait_closed(), 5)
        assert ws.close_code == 1012


async def test_an_abrupt_end_frees_everything(server_here: Served) -> None:
    push = 'subscription { claimedTasks(input: {workerId: "w", channels: ["c"]}) { leases { id } } }'
    async with connected(server_here) as ws:
        await subscribe(ws, "1", EVENTS)
        await subscribe(ws, "2", push)
        await hear(ws)
        await hear(ws)
        ws.transport.abort()
        services = server_here.services

        async def free() -> bool:
            return (services.log.listeners, services.push.open, services.dispatcher.waiting) == (0, 0, 0)

        await until(free)
