"""crew.create_tasks(jsonb): what it checks at once, and who may call it."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

T = {"name": "t", "channel": "c"}
ID = "018f5a3e-7c11-7a55-8d3c-0242ac120002"


def one(**fields: Any) -> dict[str, Any]:
    return {"name": "g", "tasks": [{**T, **fields}]}


def parent(**fields: Any) -> dict[str, Any]:
    return {"name": "g", "tasks": [{**T, "ref": "a"}, {**T, "parents": [fields]}]}


# What is wrong: the call, the path, and a part of the message or of the hint.
BAD: dict[str, tuple[Any, str, str]] = {
    "an array": ([T], "", "the call: it is a JSON array"),
    "a text": ("x", "", "the call: it is a JSON string"),
    "null": (None, "", "the call: it is a JSON null"),
    "nothing": ({}, "name", "name: it is missing"),
    "empty name": ({"name": ""}, "name", 'name: it is ""'),
    "name of null": ({"name": None}, "name", "name: it is missing"),
    "tasks no array": ({"name": "g", "tasks": {}}, "tasks", "tasks: it is a JSON object"),
    "a group and a name": ({"groupId": ID, "name": "g", "tasks": []}, "groupId", "with the id or name of a new one"),
    "a group and no tasks": ({"groupId": ID}, "groupId", "with no tasks"),
    "a group of no UUID": ({"groupId": "x", "tasks": []}, "groupId", "Give it a UUID"),
    "an id of no UUID": ({"name": "g", "id": 7}, "id", "Give it a UUID"),
    "unknown in the call": ({"name": "g", "task": []}, "task", "Use one of: id, isPaused, metadata, name, tasks."),
    "isPaused": ({"name": "g", "isPaused": 1}, "isPaused", "Give it true or false."),
    "too many tasks": ({"name": "g", "tasks": [1] * 10001}, "tasks", "10001 tasks in one call"),
    "task no object": ({"name": "g", "tasks": [T, 7]}, "tasks[1]", "it is a JSON number"),
    "no channel": ({"name": "g", "tasks": [{"name": "t"}]}, "tasks[0].channel", "it is missing"),
    "unknown in a task": (one(chanel="c"), "tasks[0].chanel", "there is no such field"),
    "snake case": (one(delay_seconds=1), "tasks[0].delay_seconds", "delaySeconds"),
    "channel a number": (one(channel=7), "tasks[0].channel", "it is 7"),
    "task's id": (one(id="7"), "tasks[0].id", "Give it a UUID"),
    "priority a fraction": (one(priority=1.5), "tasks[0].priority", "Give it a whole number."),
    "priority a text": (one(priority="1"), "tasks[0].priority", 'it is "1"'),
    "delay a text": (one(delaySeconds="1"), "tasks[0].delaySeconds", "Give it a number."),
    "runAfter without offset": (one(runAfter="2030-01-01T00:00:00"), "tasks[0].runAfter", "UTC offset"),
    "runAfter a number": (one(runAfter=1), "tasks[0].runAfter", "UTC offset"),
    "isSeed": (one(isSeed="yes"), "tasks[0].isSeed", "Give it true or false."),
    "onDuplicate": (one(onDuplicate="merge"), "tasks[0].onDuplicate", "Give it one of: MERGE, RETURN_EXISTING, REJECT, ALLOW."),
    "onParentFailure": (one(onParentFailure=0), "tasks[0].onParentFailure", "Give it one of: BLOCK, CANCEL, RUN."),
    "retry": (one(retry=5), "tasks[0].retry", "Give it an object."),
    "unknown in retry": (one(retry={"attempts": 5}), "tasks[0].retry.attempts", "Use one of: backoff, "),
    "maxAttempts": (one(retry={"maxAttempts": "5"}), "tasks[0].retry.maxAttempts", "Give it a whole number."),
    "parents": (one(parents="a"), "tasks[0].parents", "Give it an array."),
    "parent a text": (one(parents=["a"]), "tasks[0].parents[0]", "it is a JSON string"),
    "unknown ref": (parent(ref="b"), "tasks[1].parents[0].ref", 'no task of this call has the ref "b"'),
    "id and ref": (parent(id=ID, ref="a"), "tasks[1].parents[0]", "named by both id and ref"),
    "neither": (parent(), "tasks[1].parents[0]", "named by nothing"),
    "waitFor": (parent(ref="a", waitFor="ALL"), "tasks[1].parents[0].waitFor", "Give it one of: TASK, SUBTREE."),
    "unknown in a parent": (parent(ref="a", wait="x"), "tasks[1].parents[0].wait", "Use one of: id, ref, waitFor."),
    "a ref twice": ({"name": "g", "tasks": [{**T, "ref": "a"}, {**T, "ref": "a"}]}, "tasks[0].ref", "a is given to two tasks"),
    "an id twice": (
        {"name": "g", "tasks": [{**T, "id": ID}, {**T, "id": ID.upper()}]},
        "tasks[0].id",
        "is given to two tasks of this call",
    ),
}  # fmt: skip


@pytest.fixture
async def own(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close()


async def waiting(own: asyncpg.Connection) -> int:
    return await own.fetchval("select count(*)::int from inbox")


async def test_bad_input_is_raised_with_its_path_and_nothing_is_written(own: asyncpg.Connection) -> None:
    for name, (call, path, words) in BAD.items():
        with pytest.raises(asyncpg.InvalidParameterValueError) as raised:
            await own.fetchval("select crew.create_tasks($1)", json.dumps(call))
        error = raised.value
        assert str(error).startswith("crew.create_tasks: "), name
        assert words in f"{error} {error.hint}", (name, str(error), error.hint)
        assert (error.detail or "") == path, (name, str(error))
        assert error.hint.endswith("."), name
    assert await waiting(own) == 0


async def test_sql_null_is_refused(own: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="the call: it is null"):
        await own.fetchval("select crew.create_tasks(null)")


async def test_a_refused_call_leaves_the_transaction_to_its_savepoint(own: asyncpg.Connection) -> None:
    async with own.transaction():
        with pytest.raises(asyncpg.InvalidParameterValueError):
            async with own.transaction():
                await own.fetchval("select crew.create_tasks('{}')")
        await own.fetchval("""select crew.create_tasks('{"name": "g"}')""")
    assert await waiting(own) == 1


async def test_null_is_as_if_left_out(own: asyncpg.Connection) -> None:
    fields = ("id", "ref", "parents", "workgroup", "key", "onDuplicate", "input", "priority", "runAfter", "delaySeconds", "retry",
              "timeoutSeconds", "progressWeight", "isSeed", "onParentFailure", "metadata")  # fmt: skip
    call = {**one(**dict.fromkeys(fields)), "id": None, "isPaused": None, "metadata": None}
    made = json.loads(await own.fetchval("select crew.create_tasks($1)", json.dumps(call)))
    assert len(made["groupId"]) == len(made["taskIds"][0]) == 36
    assert (
        json.loads(await own.fetchval("""select crew.create_tasks('{"name": "g", "tasks": null}')"""))["taskIds"] == []
    )


async def test_ten_thousand_tasks_are_checked_within_two_seconds(own: asyncpg.Connection) -> None:
    links = [[], [0], *([n - 1, n // 2] for n in range(2, 10_000))]
    tasks = [
        {**T, "ref": str(n), "parents": [{"ref": str(p)} for p in sorted({*above})]} for n, above in enumerate(links)
    ]
    made = json.loads(
        await own.fetchval("select crew.create_tasks($1)", json.dumps({"name": "g", "tasks": tasks}), timeout=2)
    )
    assert len(set(made["taskIds"])) == 10_000
    assert made["taskIds"] == sorted(made["taskIds"], key=lambda id: id[:13]), "UUIDv7, by their time"


@pytest.fixture
async def role(own: asyncpg.Connection) -> AsyncIterator[str]:
    """An application's role, which may nothing yet; `own` acts as it after `set role`."""
    name = f"crew_test_app_{os.getpid()}"
    await own.execute(f"create role {name}")
    yield name
    await own.execute(f"reset role; drop owned by {name}; drop role {name}")


async def test_only_who_is_granted_it_may_call_it_and_needs_no_right_on_a_table(
    own: asyncpg.Connection, role: str
) -> None:
    call = """select crew.create_tasks('{"name": "g", "tasks": [{"name": "t", "channel": "c"}]}')"""
    await own.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema crew"):
        await own.fetchval(call)
    await own.execute(f"reset role; grant usage on schema crew to {role}; set role {role}")
    for statement in (call, "select crew.new_id()", "select crew.wrong_with('{}')", "select * from crew.refused"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own.fetch(statement)
    await own.execute(f"reset role; grant execute on function crew.create_tasks(jsonb) to {role}; set role {role}")
    assert json.loads(await own.fetchval(call))["groupId"]
    for table in ("inbox", "inbox_refused", "task", "namespace"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own.fetch(f"select from {table}")
    await own.execute("reset role")
    assert await waiting(own) == 1


async def test_nothing_of_the_callers_stands_in_for_crews_tables(own: asyncpg.Connection, role: str) -> None:
    await own.execute(
        f"grant usage on schema crew to {role}; grant execute on function crew.create_tasks(jsonb) to {role}"
    )
    await own.execute(f"create schema theirs authorization {role}; set role {role}; set search_path = theirs, public")
    await own.execute(
        "create temporary table inbox (ns int, call jsonb, size int); create table theirs.inbox (like pg_temp.inbox)"
    )
    await own.fetchval("""select crew.create_tasks('{"name": "g"}')""")
    assert await own.fetchval("select (select count(*) from pg_temp.inbox) + (select count(*) from theirs.inbox)") == 0
    await own.execute("reset role")
    assert await own.fetchval("select count(*) from public.inbox") == 1


async def test_a_namespace_is_named_by_a_setting(own: asyncpg.Connection) -> None:
    await own.execute("insert into namespace (ns, name) values (2, 'other')")
    async with own.transaction():
        await own.execute("set local crew.namespace = 'other'")
        await own.fetchval("""select crew.create_tasks('{"name": "g"}')""")
    await own.fetchval("""select crew.create_tasks('{"name": "h"}')""")
    rows = await own.fetch("select ns, call ->> 'name' as name from inbox order by seq")
    assert [tuple(row) for row in rows] == [(2, "g"), (1, "h")]
    await own.execute("set crew.namespace = 'nowhere'")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="no namespace 'nowhere'"):
        await own.fetchval("""select crew.create_tasks('{"name": "g"}')""")
