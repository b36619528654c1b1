"""GraphQL over Server-Sent Events, distinct connections, over real sockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.streams import EVENTS, Served, served
from tests.support.wait import until

CREATE = 'mutation { createTaskGroup(input: {name: "g", tasks: [{name: "a", channel: "c"}]}) { taskGroup { id } } }'
STREAM = {"accept": "text/event-stream"}
COMMENT = {"": ""}


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn) as server:
        yield server


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=10) as client:
        yield client


class Told:
    """The messages of a stream, as {event, id, data}; a comment is {"": text}."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()

    async def next(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async for line in self._lines:
            if not line:
                return found
            name, _, value = line.partition(":")
            found[name] = value.removeprefix(" ")
        raise StopAsyncIteration

    async def batch(self) -> dict[str, Any]:
        while (message := await self.next()) == COMMENT:
            pass
        batch = json.loads(message["data"])["data"]["taskEvents"]
        assert message["event"] == "next"
        assert message["id"] == batch["cursor"]
        return batch


@contextlib.asynccontextmanager
async def stream(
    http: httpx.AsyncClient, server: Served, query: str, headers: dict[str, str] | None = None, **variables: Any
) -> AsyncIterator[Told]:
    body = {"query": query, "variables": variables}
    async with http.stream("POST", server.url, json=body, headers={**STREAM, **(headers or {})}) as response:
        yield Told(response)


async def test_each_message_carries_its_cursor_as_id(server_here: Served, http: httpx.AsyncClient) -> None:
    async with stream(http, server_here, EVENTS) as told:
        assert told.response.status_code == 200
        assert told.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert (await told.batch())["events"] == []
        await http.post(server_here.url, json={"query": CREATE})
        assert [e["kind"] for e in (await told.batch())["events"]] == ["GROUP_CREATED", "CREATED"]


async def test_last_event_id_resumes(server_here: Served, http: httpx.AsyncClient) -> None:
    async with stream(http, server_here, EVENTS) as told:
        cursor = (await told.batch())["cursor"]
    await http.post(server_here.url, json={"query": CREATE})
    async with stream(http, server_here, EVENTS, {"last-event-id": cursor}, after=None) as told:
        events = (await told.batch())["events"] or (await told.batch())["events"]
        assert [e["kind"] for e in events] == ["GROUP_CREATED", "CREATED"]


async def test_a_get_is_a_stream_too_as_eventsource_asks(server_here: Served, http: httpx.AsyncClient) -> None:
    params = {"query": "subscription { taskEvents { cursor events { kind } } }"}
    async with http.stream("GET", server_here.url, params=params, headers=STREAM) as response:
        assert (await Told(response).batch())["events"] == []


async def test_queries_and_mutations_are_one_message_and_complete(server_here: Served, http: httpx.AsyncClient) -> None:
    async with stream(http, server_here, CREATE) as told:
        message = await told.next()
        assert "createTaskGroup" in json.loads(message["data"])["data"]
        assert await told.next() == {"event": "complete", "data": ""}
        with pytest.raises(StopAsyncIteration):
            await told.next()


async def test_silence_is_broken_by_comments(
    server_here: Served, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transports.sse.KEEP_ALIVE", 0.05)
    async with stream(http, server_here, EVENTS) as told:
        await told.batch()
        assert await told.next() == COMMENT


@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("subscription { nonsense }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription {", {}, "GRAPHQL_PARSE_FAILED"),
        (EVENTS, {"after": "x"}, "BAD_INPUT"),
        (EVENTS, {"after": 5}, "BAD_INPUT"),
    ],
)
async def test_what_is_refused_is_a_message_of_an_accepted_stream(
    server_here: Served, http: httpx.AsyncClient, query: str, variables: dict[str, Any], code: str
) -> None:
    async with stream(http, server_here, query, **variables) as told:
        assert told.response.status_code == 200
        message = await told.next()
        assert (message.keys(), message["event"]) == ({"event", "data"}, "next")
        answer = json.loads(message["data"])
        assert "data" not in answer
        assert answer["errors"][0]["extensions"]["code"] == code
        assert await told.next() == {"event": "complete", "data": ""}
        with pytest.raises(StopAsyncIteration):
            await told.next()


async def test_what_is_no_graphql_is_a_plain_refusal(server_here: Served, http: httpx.AsyncClient) -> None:
    response = await http.post(server_here.url, content=b"{", headers={**STREAM, "content-type": "application/json"})
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json; charset=utf-8")
    assert response.json()["errors"][0]["extensions"]["code"] == "BAD_REQUEST"


async def test_a_subscription_that_asks_for_json_is_told_what_to_do(
    server_here: Served, http: httpx.AsyncClient
) -> None:
    response = await http.post(server_here.url, json={"query": EVENTS})
    assert response.status_code == 406
    assert "text/event-stream" in response.json()["errors"][0]["message"]


async def test_a_mutation_by_get_is_refused(server_here: Served, http: httpx.AsyncClient) -> None:
    response = await http.get(server_here.url, params={"query": CREATE}, headers=STREAM)
    assert response.status_code == 405


async def test_a_server_that_stops_ends_the_stream_without_completing_it(dsn: str, http: httpx.AsyncClient) -> None:
    async with served(dsn) as server, stream(http, server, EVENTS) as told:
        await told.batch()
        server.services.drain()
        with pytest.raises(StopAsyncIteration):
            await told.next()


async def test_a_client_that_goes_away_frees_its_place(server_here: Served, http: httpx.AsyncClient) -> None:
    push = 'subscription { claimedTasks(input: {workerId: "w", channels: ["c"]}) { leases { id } } }'
    async with stream(http, server_here, EVENTS) as one, stream(http, server_here, push) as two:
        await one.batch()
        await two.next()
    services = server_here.services

    async def free() -> bool:
        return (services.log.listeners, services.push.open, services.dispatcher.waiting) == (0, 0, 0)

    await until(free)
