"""How many statements a request makes, and what its fields do to each other: nothing is read row by row."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from db.pool import Pool
from tests.support.crew import Crew

BRANCHES = 2


async def statements_for(crew: Crew, monkeypatch: pytest.MonkeyPatch, query: str, **variables: Any) -> int:
    """How many statements one request makes; those of the server's loops are not counted."""
    count = 0
    run = Pool.run
    loops = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    async def counting(self: Pool, *args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += asyncio.current_task() not in loops
        return await run(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Pool, "run", counting)
        await crew.ask(query, **variables)
    return count


QUERIES = {
    "graph": (
        "query($id: ID!) { taskGroup(id: $id) { graph { nodes { parents { name } children { name } errors { error } "
        "group { name } spawnedBy { name } parentCount childCount } edges { parentId } } } }"
    ),
    "list": (
        "query($id: ID!) { tasks(first: 1000, filter: {groupId: $id}) { totalCount nodes { parents { name } "
        "children { name } errors { error } group { name progress { fraction } finishedAt } spawnedBy { name } } } }"
    ),
    "groups": "{ taskGroups(first: 1000) { totalCount nodes { name finishedAt progress { fraction } } } }",
    "channels": "{ channels(first: 1000) { name counts { count } oldestReadySeconds } }",
    "workgroups": "{ workgroups(first: 1000) { name suspendedUntil counts { count } } }",
}


async def grown(crew: Crew, size: int) -> str:
    """A group of so many tasks, each with a parent, an error or a spawner; as many groups, channels and workgroups."""
    made = await crew.create(
        {"name": "root", "ref": "0", "retry": {"delaySeconds": 0}},
        *({"name": "t", "ref": str(n), "parents": [{"ref": str(n // 2)}]} for n in range(1, size // 2)),
    )
    await crew.fail(*await crew.claim())
    children = [
        {"name": "spawned", "channel": f"{size}.{n}", "workgroup": f"{size}.{n}"} for n in range(size - size // 2)
    ]
    await crew.complete(*await crew.claim(), children=children)
    for _ in range(size):
        await crew.create({"name": "x", "channel": "other"})
    id: str = made["taskGroup"]["id"]
    return id


@pytest.mark.parametrize("what", QUERIES)
async def test_a_nested_read_makes_as_many_statements_for_fifty_tasks_as_for_five(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    needs = {"id"} if "$id" in QUERIES[what] else set()
    counts = []
    for size in (5, 50):
        id = await grown(crew, size)
        variables = {"id": id} if needs else {}
        counts.append(await statements_for(crew, monkeypatch, QUERIES[what], **variables))
    # Two branches of one request may load their tasks in one batch or in two, as their links come back: never one more a task.
    assert abs(counts[0] - counts[1]) <= BRANCHES, counts
    assert 0 < counts[0] <= 14


@pytest.mark.parametrize(
    "query", ["parents { name output }", "parentCount", "task { parents { name } group { name } }"]
)
async def test_a_claim_of_fifty_reads_its_parents_in_as_many_statements_as_a_claim_of_five(
    crew: Crew, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    claim = "mutation($input: ClaimTasksInput!) { claimTasks(input: $input) { leases { %s } } }" % query
    counts = []
    for size in (5, 50):
        await crew.create({"name": "p", "ref": "p"}, *({"name": "t", "parents": [{"ref": "p"}]} for _ in range(size)))
        await crew.complete(*await crew.claim())
        given = {"workerId": "w", "channels": ["c"], "limit": size}
        counts.append(await statements_for(crew, monkeypatch, claim, input=given))
    assert counts[0] == counts[1]


async def test_a_field_that_fails_takes_nothing_from_others_that_wait_for_the_same(crew: Crew) -> None:
    """graphql-core cancels the fields beside one that failed; what they waited for was cancelled with them."""
    await crew.create({"name": "a"})
    refused = 'b: taskGroups { nodes { finishedAt tasks(after: "x") { totalCount } } }'
    for _ in range(5):  # Not at the first: both wait for the same once there are connections for both.
        answer = (await crew.send("{ a: taskGroups { nodes { name finishedAt } } %s }" % refused)).json()
        assert answer["data"] == {"a": {"nodes": [{"name": "g", "finishedAt": None}]}, "b": None}
        assert [e["extensions"]["code"] for e in answer["errors"]] == ["BAD_INPUT"]
