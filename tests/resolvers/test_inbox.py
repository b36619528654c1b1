"""crew.create_tasks: tasks made in the user's own transaction are made as through the API, once it commits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.support.crew import Crew
from tests.support.races import connected, servers_wait_for_locks, two_servers
from tests.support.streams import poll
from tests.support.wait import until

T = {"name": "t", "channel": "c"}
TASK = (
    "name channel workgroup key state priority input metadata attempt remainingAttempts timeoutSeconds progressWeight isSeed "
    "onParentFailure retry { maxAttempts delaySeconds backoff maxDelaySeconds } parentCount parents { name } childCount"
)
GROUP = f"name isPaused metadata progress {{ total counts {{ state count }} }} graph {{ nodes {{ {TASK} }} edges {{ waitFor }} }}"
FULL = {
    "name": "n",
    "metadata": {"a": [None, 0, "", {"b": 1.5}]},
    "tasks": [
        {"ref": "a", "name": "a", "channel": "c", "input": 0, "priority": 5, "isSeed": True, "metadata": {"x": "ü"}},
        {"ref": "b", "name": "b", "channel": "d", "workgroup": "w", "key": "k", "parents": [{"ref": "a", "waitFor": "SUBTREE"}]},
        {
            "name": "c", "channel": "c", "delaySeconds": 60, "retry": {"maxAttempts": 2, "backoff": 2}, "timeoutSeconds": 9,
            "progressWeight": 3, "onParentFailure": "RUN", "input": {"deep": [[]]}, "parents": None, "workgroup": None,
        },
        {
            "name": "later", "channel": "c", "delaySeconds": 60, "onDuplicate": "ALLOW", "key": "k",
            "parents": [{"ref": "b"}, {"ref": "a"}],
        },
    ],
}  # fmt: skip


@pytest.fixture
async def own(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """The application's connection."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def call(own: asyncpg.Connection, given: Any) -> dict[str, Any]:
    return json.loads(await own.fetchval("select crew.create_tasks($1)", json.dumps(given)))


async def taken(crew: Crew) -> None:
    """Returns when nothing waits any more."""

    async def none_left() -> bool:
        return (await crew.sql("select not exists (select from inbox) as none"))[0]["none"]

    await until(none_left)


async def group(crew: Crew, id: str, fields: str = GROUP) -> dict[str, Any]:
    return (await crew.ask(f"query($id: ID!) {{ taskGroup(id: $id) {{ {fields} }} }}", id=id))["taskGroup"]


async def refused(crew: Crew) -> list[tuple[str, str]]:
    rows = await crew.sql("select code, path from crew.refused order by sent_at, refused_at")
    return [tuple(row) for row in rows]


async def test_what_is_made_is_what_the_api_makes(crew: Crew, own: asyncpg.Connection) -> None:
    through_the_api = await crew.create(*FULL["tasks"], **{k: v for k, v in FULL.items() if k != "tasks"})
    made = await call(own, FULL)
    await taken(crew)
    assert await group(crew, made["groupId"]) == await group(crew, through_the_api["taskGroup"]["id"])
    for id, name in zip(made["taskIds"], "abc", strict=False):
        assert (await crew.task(id, "name"))["name"] == name
        assert UUID(id).version == 7


async def test_events_are_those_of_the_api(crew: Crew, own: asyncpg.Connection) -> None:
    start = (await poll(crew))["cursor"]
    await crew.create(*FULL["tasks"], name="n")
    middle = await poll(crew, start, waitSeconds=5)
    made = await call(own, FULL)
    await taken(crew)
    end = await poll(crew, middle["cursor"], waitSeconds=5)

    def kinds(batch: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
        return sorted((e["kind"], e["channel"], e["state"]) for e in batch["events"])

    assert kinds(end) == kinds(middle)
    assert {e["groupId"] for e in end["events"]} == {made["groupId"]}


async def test_they_wake_a_claim_that_waits(crew: Crew, own: asyncpg.Connection) -> None:
    claim = asyncio.create_task(crew.claim(waitSeconds=20))
    made = await call(own, {"name": "g", "tasks": [T]})
    (lease,) = await asyncio.wait_for(claim, 5)
    assert (await crew.task(made["taskIds"][0], "state"))["state"] == "RUNNING"
    assert lease["task"]["name"] == "t"


async def test_nothing_is_made_before_the_commit_and_nothing_after_a_rollback(
    crew: Crew, own: asyncpg.Connection
) -> None:
    undone = own.transaction()
    await undone.start()
    made = await call(own, {"name": "g", "tasks": [T]})
    assert await crew.services.inbox.take() == 0
    await undone.rollback()
    assert await crew.services.inbox.take() == 0
    assert await group(crew, made["groupId"], "name") is None


async def test_tasks_for_a_group_that_is_there_hang_from_its_tasks(crew: Crew, own: asyncpg.Connection) -> None:
    there = await crew.create({"name": "p"})
    parent = {"id": there["tasks"][0]["id"]}
    made = await call(
        own, {"groupId": there["taskGroup"]["id"], "tasks": [{**T, "parents": [parent]}, {**T, "name": "u"}]}
    )
    await taken(crew)
    assert made["groupId"] == there["taskGroup"]["id"]
    assert await crew.states(made["groupId"]) == {"p": "READY", "t": "BLOCKED", "u": "READY"}
    progress = (await group(crew, made["groupId"], "progress { total }"))["progress"]
    assert progress == {"total": 3}


async def test_a_call_may_use_what_an_earlier_one_of_its_transaction_makes(crew: Crew, own: asyncpg.Connection) -> None:
    async with own.transaction():
        first = await call(own, {"name": "g", "tasks": [T]})
        parents = [{"id": first["taskIds"][0]}]
        second = await call(own, {"groupId": first["groupId"], "tasks": [{**T, "name": "u", "parents": parents}]})
    await taken(crew)
    assert await crew.states(first["groupId"]) == {"t": "READY", "u": "BLOCKED"}
    assert second["groupId"] == first["groupId"]
    assert await refused(crew) == []


async def test_ids_of_the_senders_own_make_it_safe_to_repeat(crew: Crew, own: asyncpg.Connection) -> None:
    given = {"id": str(uuid4()), "name": "g", "tasks": [{**T, "id": str(uuid4())}, T]}
    made = await call(own, given)
    assert (made["groupId"], made["taskIds"][0]) == (given["id"], given["tasks"][0]["id"])
    await call(own, given)
    await taken(crew)
    await call(own, given)
    await taken(crew)
    assert (await group(crew, given["id"], "progress { total }"))["progress"] == {"total": 2}
    assert await refused(crew) == []


async def test_a_group_may_be_born_paused_and_empty(crew: Crew, own: asyncpg.Connection) -> None:
    made = await call(own, {"name": "g", "isPaused": True})
    assert made["taskIds"] == []
    await taken(crew)
    assert await group(crew, made["groupId"], "name isPaused") == {"name": "g", "isPaused": True}


async def test_many_calls_are_all_made(crew: Crew, own: asyncpg.Connection) -> None:
    async with own.transaction():
        made = [await call(own, {"name": str(n), "tasks": [T] * (n % 3)}) for n in range(250)]
    await taken(crew)
    rows = await crew.sql("select id::text, name from task_group order by group_no")
    assert [tuple(row) for row in rows] == [(m["groupId"], str(n)) for n, m in enumerate(made)]
    assert (await crew.sql("select count(*)::int as n from task"))[0]["n"] == sum(n % 3 for n in range(250))


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "no such group": ({"groupId": str(UUID(int=7)), "tasks": [T]}, "NOT_FOUND", "groupId"),
    "no such parent": (
        {"name": "g", "tasks": [{**T, "parents": [{"id": str(UUID(int=7))}]}]},
        "NOT_FOUND",
        "tasks[0].parents[0].id",
    ),
    "a cycle": (
        {"name": "g", "tasks": [{**T, "ref": "a", "parents": [{"ref": "b"}]}, {**T, "ref": "b", "parents": [{"ref": "a"}]}]},
        "BAD_INPUT",
        "tasks[0].parents[0]",
    ),
    "too long a channel": ({"name": "g", "tasks": [T, {**T, "channel": "c" * 256}]}, "BAD_INPUT", "tasks[1].channel"),
    "too many attempts": ({"name": "g", "tasks": [{**T, "retry": {"maxAttempts": 0}}]}, "BAD_INPUT", "tasks[0].retry.maxAttempts"),
    "beyond 32 bits": ({"name": "g", "tasks": [{**T, "priority": 9999999999}]}, "BAD_INPUT", "tasks[0].priority"),
    "beyond 64 bits": ({"name": "g", "tasks": [{**T, "input": [1 << 64]}]}, "BAD_INPUT", "tasks[0].input[0]"),
    "both times": (
        {"name": "g", "tasks": [{**T, "delaySeconds": 1, "runAfter": "2030-01-01T00:00:00Z"}]},
        "BAD_INPUT",
        "tasks[0].delaySeconds",
    ),
    "no such day": ({"name": "g", "tasks": [{**T, "runAfter": "2030-02-31T00:00:00Z"}]}, "BAD_INPUT", "tasks[0].runAfter"),
}  # fmt: skip


async def test_what_a_server_refuses_is_a_row_and_an_event_and_the_others_are_made(
    crew: Crew, own: asyncpg.Connection
) -> None:
    start = (await poll(crew))["cursor"]
    before = await call(own, {"name": "before", "tasks": [T]})
    async with own.transaction():
        bad = [await call(own, given) for given, _, _ in REFUSED.values()]
        after = await call(own, {"name": "after", "tasks": [T]})
    await taken(crew)
    rows = await crew.sql("select group_id::text, code, path, namespace, message, call::text from crew.refused")
    found = {row["group_id"]: row for row in rows}
    for (name, (given, code, path)), made in zip(REFUSED.items(), bad, strict=True):
        row = found[made["groupId"]]
        assert (row["code"], row["path"], row["namespace"]) == (code, path, "default"), name
        assert len(row["message"]) > 20
        assert json.loads(row["call"])["tasks"][-1]["name"] == given["tasks"][-1]["name"]
    names = await crew.sql("select name from task_group order by group_no")
    assert [row["name"] for row in names] == ["before", "after"]
    assert (await group(crew, before["groupId"], "name"), await group(crew, after["groupId"], "name")) != (None, None)
    told: list[Any] = []
    while len(told) < len(bad):
        batch = await poll(crew, start, waitSeconds=5, filter={"kinds": ["REFUSED"]})
        told, start = told + batch["events"], batch["cursor"]
    assert [e["groupId"] for e in told] == [None] * len(bad)


async def test_a_refusal_in_a_group_that_is_there_is_told_in_it(crew: Crew, own: asyncpg.Connection) -> None:
    there = await crew.create()
    start = (await poll(crew))["cursor"]
    await call(own, {"groupId": there["taskGroup"]["id"], "tasks": [{**T, "parents": [{"id": str(UUID(int=7))}]}]})
    await taken(crew)
    events = (await poll(crew, start, waitSeconds=5, filter={"kinds": ["REFUSED"]}))["events"]
    assert [e["groupId"] for e in events] == [there["taskGroup"]["id"]]


async def test_a_number_that_nobody_can_read_is_refused_and_keeps_no_one(crew: Crew, own: asyncpg.Connection) -> None:
    given = '{"name": "g", "tasks": [{"name": "t", "channel": "c", "input": 1e9999}]}'
    await own.fetchval("select crew.create_tasks($1)", given)
    made = await call(own, {"name": "h", "tasks": [T]})
    await taken(crew)
    assert [code for code, _ in await refused(crew)] == ["BAD_INPUT"]
    assert await crew.states(made["groupId"]) == {"t": "READY"}


async def test_refusals_are_forgotten_with_the_events(crew: Crew, own: asyncpg.Connection) -> None:
    from db.inbox import forget_refused

    await call(own, REFUSED["no such group"][0])
    await taken(crew)
    core = crew.services.core
    assert await forget_refused(core.pool, core.ns, 100, 60) == 0
    await crew.sql("update inbox_refused set at = now() - interval '61 s'")
    assert await forget_refused(core.pool, core.ns, 100, 60) == 1
    assert await refused(crew) == []


async def test_a_server_takes_nothing_that_came_after_what_another_has(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye), connected(dsn, 1) as (own,):
        stop = a.transaction()
        await stop.start()
        await a.execute("lock table task_group in share mode")
        first = await call(own, {"name": "first", "tasks": [T]})
        taking = asyncio.create_task(one.services.inbox.take())
        await servers_wait_for_locks(eye)
        await call(own, {"groupId": first["groupId"], "tasks": [{**T, "name": "second"}]})
        assert await two.services.inbox.take() == 0
        await stop.rollback()
        await taking
        await taken(one)
        assert await one.states(first["groupId"]) == {"t": "READY", "second": "READY"}
        assert await refused(one) == []


async def test_a_call_whose_server_loses_its_connection_is_taken_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye), connected(dsn, 1) as (own,):
        stop = a.transaction()
        await stop.start()
        await a.execute("lock table task_group in share mode")
        made = [await call(own, {"name": str(n), "tasks": [T]}) for n in range(5)]
        await servers_wait_for_locks(eye)
        await eye.fetch(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()"
            " and application_name = 'crew' and wait_event_type = 'Lock'"
        )
        await stop.rollback()
        await taken(two)
        rows = await one.sql("select id::text from task_group order by group_no")
        assert [row["id"] for row in rows] == [m["groupId"] for m in made]


async def test_many_servers_take_each_call_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, _, _), connected(dsn, 1) as (own,):
        made = [await call(own, {"name": str(n), "tasks": [T]}) for n in range(60)]
        await asyncio.gather(*(crew.services.inbox.take() for crew in (one, two) for _ in range(5)))
        await taken(one)
        rows = await one.sql("select id::text from task_group")
        assert sorted(row["id"] for row in rows) == sorted(m["groupId"] for m in made)
        assert (await one.sql("select count(*)::int as n from task"))[0]["n"] == 60
