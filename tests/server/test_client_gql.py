"""gql, the client of Python, against a real server: over HTTP, and over a websocket."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import tenacity
from gql import Client, GraphQLRequest
from gql.client import AsyncClientSession
from gql.transport.async_transport import AsyncTransport
from gql.transport.exceptions import TransportConnectionFailed, TransportError, TransportQueryError
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport
from graphql import print_schema

from tests.support.crew import CLAIM, COMPLETE, CREATE
from tests.support.process import free_port
from tests.support.streams import EVENTS, PUSH, Served, served
from tests.support.wait import until

Session = AsyncClientSession
TASKS = "{ tasks { nodes { name state } } }"


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn) as server:
        yield server


def over_http(server: Served) -> AsyncTransport:
    return HTTPXAsyncTransport(server.url, timeout=30)


def over_websocket(server: Served, **more: Any) -> AsyncTransport:
    return WebsocketsTransport(server.websocket, **more)


BOTH = pytest.mark.parametrize("transport", [over_http, over_websocket])


async def ask(session: Session, query: str, **variables: Any) -> dict[str, Any]:
    return await session.execute(GraphQLRequest(query, variable_values=variables))


async def create(session: Session, *names: str) -> None:
    await ask(session, CREATE, input={"name": "g", "tasks": [{"name": name, "channel": "c"} for name in names]})


def subscribe(session: Session, query: str, **variables: Any) -> Any:
    return session.subscribe(GraphQLRequest(query, variable_values=variables))


async def kinds(batches: Any, n: int) -> tuple[list[str], str]:
    """The kinds of the next events, at least so many, and the cursor behind them."""
    found: list[str] = []
    cursor = ""
    async with asyncio.timeout(15):
        while len(found) < n:
            batch = (await anext(batches))["taskEvents"]
            found += [event["kind"] for event in batch["events"]]
            cursor = batch["cursor"]
    return found, cursor


@BOTH
async def test_work_is_created_claimed_and_completed(server_here: Served, transport: Any) -> None:
    async with Client(transport=transport(server_here)) as session:
        await create(session, "a", "b")
        claim = await ask(session, CLAIM, input={"workerId": "w", "channels": ["c"], "limit": 2})
        leases = claim["claimTasks"]["leases"]
        assert [lease["task"]["name"] for lease in leases] == ["a", "b"]
        done = await ask(session, COMPLETE, input={"results": [{"lease": leases[0]["id"], "output": {"x": 1}}]})
        assert done["completeTasks"]["completed"] == 1
        tasks = (await ask(session, TASKS))["tasks"]["nodes"]
        assert {task["name"]: task["state"] for task in tasks} == {"a": "SUCCEEDED", "b": "RUNNING"}


async def test_the_schema_is_fetched_by_introspection(server_here: Served) -> None:
    async with Client(transport=over_http(server_here), fetch_schema_from_transport=True) as session:
        assert session.client.schema is not None
        assert "taskEvents" in print_schema(session.client.schema)
        assert (await ask(session, TASKS))["tasks"]["nodes"] == []


@BOTH
@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("{ nonsense }", {}, "GRAPHQL_VALIDATION_FAILED"),
        (CLAIM, {"input": {"workerId": "w"}}, "BAD_INPUT"),
        (CLAIM, {"input": {"workerId": "w", "channels": ["c"], "limit": -1}}, "BAD_INPUT"),
    ],
    ids=["document", "variables", "field"],
)
async def test_a_refusal_is_an_error_with_its_code(
    server_here: Served, transport: Any, query: str, variables: dict[str, Any], code: str
) -> None:
    async with Client(transport=transport(server_here)) as session:
        with pytest.raises(TransportQueryError) as refused:
            await ask(session, query, **variables)
        assert refused.value.errors[0]["extensions"]["code"] == code
        assert (await ask(session, TASKS))["tasks"]["nodes"] == []


async def test_a_subscription_over_plain_http_is_told_what_it_needs(server_here: Served) -> None:
    async with Client(transport=over_http(server_here)) as session:
        with pytest.raises(TransportError, match="a websocket"):
            await ask(session, EVENTS)


async def test_one_socket_carries_subscriptions_and_work(server_here: Served) -> None:
    transport = over_websocket(
        server_here, init_payload={"authorization": "Bearer x"}, ping_interval=0.1, pong_timeout=10
    )
    async with Client(transport=transport) as session:
        only = {"kinds": ["CREATED", "STARTED", "SUCCEEDED"]}
        async with aclosing(subscribe(session, EVENTS, filter=only)) as events:
            assert (await anext(events))["taskEvents"]["events"] == []
            push = {"workerId": "w", "channels": ["c"], "limit": 1}
            async with aclosing(subscribe(session, PUSH, input=push)) as pushed:
                await create(session, "a", "b")
                for name in ("a", "b"):
                    leases: list[dict[str, Any]] = []
                    while not leases:
                        leases = (await asyncio.wait_for(anext(pushed), 15))["claimedTasks"]["leases"]
                    assert [lease["task"]["name"] for lease in leases] == [name]
                    await ask(session, COMPLETE, input={"results": [{"lease": leases[0]["id"]}]})
            found, _ = await kinds(events, 6)
        assert sorted(found) == ["CREATED"] * 2 + ["STARTED"] * 2 + ["SUCCEEDED"] * 2
        await until(lambda: nobody_listens(server_here))


async def nobody_listens(server: Served) -> bool:
    return (server.services.log.listeners, server.services.push.open) == (0, 0)


async def test_a_refused_subscription_raises_and_leaves_the_socket_open(server_here: Served) -> None:
    async with Client(transport=over_websocket(server_here)) as session:
        with pytest.raises(TransportQueryError) as refused:
            await anext(subscribe(session, EVENTS, after="x"))
        assert refused.value.errors[0]["extensions"]["code"] == "BAD_INPUT"
        assert (await ask(session, TASKS))["tasks"]["nodes"] == []


async def test_a_client_connects_again_and_goes_on_from_its_cursor(dsn: str) -> None:
    port = free_port()
    soon = tenacity.retry(wait=tenacity.wait_fixed(0.05), stop=tenacity.stop_after_attempt(200))
    async with served(dsn, port=port) as server:
        client = Client(transport=over_websocket(server))
        session = await client.connect_async(reconnecting=True, retry_connect=soon)
        events = subscribe(session, EVENTS)
        assert (await anext(events))["taskEvents"]["events"] == []
        await create(session, "a")
        found, cursor = await kinds(events, 2)
        assert found == ["GROUP_CREATED", "CREATED"]
    with pytest.raises(TransportConnectionFailed):
        await anext(events)
    async with served(dsn) as other, Client(transport=over_http(other)) as elsewhere:
        await create(elsewhere, "b")
    async with served(dsn, port=port):
        await until(lambda: connected(session))
        await create(session, "c")
        async with aclosing(subscribe(session, EVENTS, after=cursor)) as events:
            assert (await kinds(events, 4))[0] == ["GROUP_CREATED", "CREATED"] * 2
        await client.close_async()


async def connected(session: Session) -> bool:
    with contextlib.suppress(TransportError):
        return "tasks" in await ask(session, TASKS)
    return False
