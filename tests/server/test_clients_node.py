"""graphql-ws and graphql-sse, the clients of npm, against a real server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.support.crew import COMPLETE, CREATE
from tests.support.fault_proxy import fault_proxy
from tests.support.node import Program, program
from tests.support.process import ROOT, free_port
from tests.support.streams import EVENTS, PUSH, Served, served
from tests.support.wait import until

BOTH = pytest.mark.parametrize("transport", ["ws", "sse"])
RESUMES = pytest.mark.parametrize(
    ("transport", "resume"), [("ws", "variables"), ("sse", "variables"), ("sse", "Last-Event-ID")]
)


@pytest.fixture
async def server_here(dsn: str) -> AsyncIterator[Served]:
    async with served(dsn) as server:
        yield server


@contextlib.asynccontextmanager
async def client(transport: str, url: str, keep_alive: int = 0) -> AsyncIterator[Program]:
    async with program(ROOT / "tests" / "clients", "client.mjs", transport, url, str(keep_alive)) as client:
        yield client


async def ask(server: Served, query: str, **variables: Any) -> Any:
    async with httpx.AsyncClient() as http:
        answer = (await http.post(server.url, json={"query": query, "variables": variables})).json()
        assert "errors" not in answer
        return answer["data"]


async def create(server: Served, *names: str) -> None:
    tasks = [{"name": name, "channel": "c"} for name in names]
    await ask(server, CREATE, input={"name": "g", "tasks": tasks})


class Log:
    """What a subscription to taskEvents is told."""

    def __init__(self, client: Program, id: str) -> None:
        self._client, self._id = client, id
        self.events: list[tuple[str, str, str | None]] = []

    async def begun(self) -> None:
        assert await self._batch() == []

    async def all_of(self, n: int) -> list[tuple[str, str, str | None]]:
        """Kind, group and task of each event, once there are so many."""
        while len(self.events) < n:
            self.events += [(e["kind"], e["groupId"], e["taskId"]) for e in await self._batch()]
        return self.events

    async def _batch(self) -> list[dict[str, Any]]:
        answer = await self._client.hear("next", id=self._id)
        return answer["data"]["taskEvents"]["events"]


def watch(client: Program, id: str = "1", **more: Any) -> Log:
    client.tell(do="subscribe", id=id, query=EVENTS, **more)
    return Log(client, id)


@BOTH
async def test_queries_and_mutations_are_answered_and_completed(server_here: Served, transport: str) -> None:
    async with client(transport, server_here.url) as ours:
        tasks = [{"name": "a", "channel": "c"}]
        ours.tell(do="subscribe", id="m", query=CREATE, variables={"input": {"name": "g", "tasks": tasks}})
        made = (await ours.hear("next", id="m"))["data"]["createTaskGroup"]["tasks"]
        assert [t["state"] for t in made] == ["READY"]
        assert await ours.hear("complete", id="m")
        ours.tell(do="subscribe", id="q", query="{ tasks { nodes { name } } }")
        assert await ours.hear("next", id="q") == {"data": {"tasks": {"nodes": [{"name": "a"}]}}}
        assert await ours.hear("complete", id="q")


@BOTH
async def test_events_come_as_they_happen_until_the_client_has_enough(server_here: Served, transport: str) -> None:
    async with client(transport, server_here.url) as ours:
        log = watch(ours)
        await log.begun()
        await create(server_here, "a", "b")
        assert [kind for kind, _, _ in await log.all_of(3)] == ["GROUP_CREATED", "CREATED", "CREATED"]
        ours.tell(do="stop", id="1")
        assert await ours.hear("complete", id="1")
        await until(lambda: nobody_listens(server_here))


async def nobody_listens(server: Served) -> bool:
    return server.services.log.listeners == 0


@BOTH
async def test_pushed_work_is_finished_over_http_and_makes_room(server_here: Served, transport: str) -> None:
    await create(server_here, "a", "b")
    async with client(transport, server_here.url) as ours:
        ours.tell(do="subscribe", id="1", query=PUSH, variables={"input": {"workerId": "w", "channels": ["c"]}})
        for name in ("a", "b"):
            leases = []
            while not leases:
                leases = (await ours.hear("next", id="1"))["data"]["claimedTasks"]["leases"]
            assert [lease["task"]["name"] for lease in leases] == [name]
            done = await ask(server_here, COMPLETE, input={"results": [{"lease": leases[0]["id"]}]})
            assert done["completeTasks"]["completed"] == 1


@BOTH
@pytest.mark.parametrize(
    ("query", "variables", "code"),
    [
        ("subscription { nonsense }", {}, "GRAPHQL_VALIDATION_FAILED"),
        ("subscription {", {}, "GRAPHQL_PARSE_FAILED"),
        (EVENTS, {"after": "x"}, "BAD_INPUT"),
        (EVENTS, {"after": 5}, "BAD_INPUT"),
        (PUSH, {"input": {"workerId": "", "channels": ["c"]}}, "BAD_INPUT"),
    ],
    ids=["invalid", "broken", "no cursor", "no text", "no name"],
)
async def test_what_is_refused_is_told_once_and_not_tried_again(
    server_here: Served, transport: str, query: str, variables: dict[str, Any], code: str
) -> None:
    async with client(transport, server_here.url) as ours:
        ours.tell(do="subscribe", id="1", query=query, variables=variables)
        if transport == "ws":
            errors = await ours.hear("error", id="1")
        else:
            errors = (await ours.hear("next", id="1"))["errors"]
            assert await ours.hear("complete", id="1")
        assert errors[0]["extensions"]["code"] == code
        assert await ours.hear("connected") == 1
        ours.tell(do="subscribe", id="2", query="{ server { version } }")
        assert await ours.hear("complete", id="2")


@RESUMES
async def test_events_go_on_at_the_next_server_where_the_last_one_stopped(
    dsn: str, transport: str, resume: str
) -> None:
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        async with served(dsn, port=port) as server:
            ours = await stack.enter_async_context(client(transport, server.url))
            log = watch(ours, resume=resume)
            await log.begun()
            await create(server, "a")
            await log.all_of(2)
        if transport == "ws":
            assert await ours.hear("closed") == 1012
        async with served(dsn) as other:
            await create(other, "b", "c")
        async with served(dsn, port=port) as server:
            await create(server, "d")
            events = await log.all_of(7)
            assert [kind for kind, _, _ in events].count("CREATED") == 4
            assert len(set(events)) == len(events) == 7


@RESUMES
async def test_a_line_that_is_cut_again_and_again_loses_and_repeats_nothing(
    server_here: Served, transport: str, resume: str
) -> None:
    cuts = [{"fault": "cut", "when": "raphql", "bytes": bytes, "times": 1} for bytes in (900, 1500, 0, 2500, 1200)]
    with fault_proxy(server_here.url) as proxy:
        async with client(transport, f"{proxy.port_with(cuts)}/graphql") as ours:
            log = watch(ours, resume=resume)
            await log.begun()
            for _ in range(20):
                await create(server_here, "a")
            events = await log.all_of(40)
            assert [kind for kind, _, _ in events] == ["GROUP_CREATED", "CREATED"] * 20
            assert len({task for _, _, task in events if task}) == 20
            for n in range(1, 6):
                assert await ours.hear("connected") == n


@BOTH
async def test_pushed_leases_outlive_the_line_they_came_by(server_here: Served, transport: str) -> None:
    names = [f"t{n}" for n in range(10)]
    await create(server_here, *names)
    cuts = [{"fault": "cut", "when": "raphql", "bytes": bytes, "times": 1} for bytes in (1000, 2000)]
    with fault_proxy(server_here.url) as proxy:
        async with client(transport, f"{proxy.port_with(cuts)}/graphql") as ours:
            push = {"workerId": "w", "channels": ["c"], "limit": 10, "holding": []}
            ours.tell(do="subscribe", id="1", query=PUSH, variables={"input": push}, resume="variables")
            leases: dict[str, str] = {}
            while len(leases) < 10:
                told = (await ours.hear("next", id="1"))["data"]["claimedTasks"]["leases"]
                assert not leases.keys() & {lease["id"] for lease in told}
                leases |= {lease["id"]: lease["task"]["name"] for lease in told}
            assert sorted(leases.values()) == names
            results = [{"lease": id} for id in leases]
            done = await ask(server_here, COMPLETE, input={"results": results})
            assert done["completeTasks"]["completed"] == 10


async def test_both_sides_of_graphql_ws_answer_pings(server_here: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.transports.websocket.INIT_SECONDS", 0.05)
    monkeypatch.setattr("server.transports.websocket.PING_SECONDS", 0.2)
    async with client("ws", server_here.url) as silent, client("ws", server_here.url, keep_alive=50) as lively:
        await watch(silent).begun()
        await watch(lively).begun()
        for _ in range(3):
            assert await silent.hear("ping") is True
            assert await silent.hear("pong") is False
            assert await lively.hear("ping") is False
            assert await lively.hear("pong") is True


async def test_a_client_that_was_frozen_is_let_go_and_goes_on_when_it_wakes(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.transports.websocket.INIT_SECONDS", 0.05)
    monkeypatch.setattr("server.transports.websocket.PING_SECONDS", 0.3)
    async with served(dsn) as server, client("ws", server.url) as ours:
        log = watch(ours, resume="variables")
        await log.begun()
        ours.freeze()
        await until(lambda: nobody_listens(server))
        await create(server, "a")
        ours.thaw()
        assert [kind for kind, _, _ in await log.all_of(2)] == ["GROUP_CREATED", "CREATED"]
        assert await ours.hear("connected") == 1
        assert await ours.hear("connected") == 2
