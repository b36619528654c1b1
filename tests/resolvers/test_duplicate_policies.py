"""What becomes of a new task while another has its channel and key: RETURN_EXISTING, REJECT, ALLOW."""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

import pytest

from tests.support.crew import COMPLETE, CREATE, Crew, Refused, crew_on
from tests.support.keys import (
    K,
    count,
    existing,
    names,
    one,
)

# -- the other policies -------------------------------------------------------------------------------------------------

OPEN = ["BLOCKED", "SCHEDULED", "READY", "RUNNING", "MERGED"]
ENDED = ["SUCCEEDED", "FAILED", "CANCELLED"]


FOUND = [(s, "MERGE") for s in OPEN] + [(s, "ALLOW") for s in OPEN if s != "MERGED"]


@pytest.mark.parametrize(("state", "policy"), FOUND)
async def test_return_existing_answers_the_task_that_has_not_ended_and_creates_nothing(
    crew: Crew, state: str, policy: str
) -> None:
    old = await existing(crew, state, onDuplicate=policy)
    before = await count(crew)
    group = (await crew.create({"name": "x", "channel": "x"}))["taskGroup"]["id"]
    new = {**K, "name": "new", "onDuplicate": "RETURN_EXISTING", "priority": 9, "input": 1}
    expected = {"id": old, "name": "k", "state": state}
    made = await crew.create({"name": "y", "channel": "x"}, new)
    assert [t["name"] for t in made["tasks"]] == ["y", "k"]
    assert made["tasks"][1] == expected
    assert await crew.create_tasks(group, new, {"name": "z", "channel": "x"}, new) == [
        expected,
        {"id": (await newest(crew, "z")), "name": "z", "state": "READY"},
        expected,
    ]
    assert await count(crew) == before + 3
    assert await crew.task(old, "priority input") == {"priority": 0, "input": None}


async def newest(crew: Crew, name: str) -> str:
    query = "query($f: TaskFilter) { tasks(filter: $f, first: 1) { nodes { id } } }"
    id: str = (await crew.ask(query, f={"nameContains": name}))["tasks"]["nodes"][0]["id"]
    return id


@pytest.mark.parametrize(("state", "policy"), FOUND)
async def test_reject_refuses_while_one_has_not_ended(crew: Crew, state: str, policy: str) -> None:
    await existing(crew, state, onDuplicate=policy)
    group = (await crew.create({"name": "spawner", "channel": "s"}))["taskGroup"]["id"]
    (lease,) = await crew.claim(channels=("s",))
    before = await count(crew)
    plain, new = {"name": "x", "channel": "x"}, {**K, "channel": "c", "onDuplicate": "REJECT"}
    for call in (lambda: crew.create(plain, new), lambda: crew.create_tasks(group, plain, new)):
        with pytest.raises(Refused) as refused:
            await call()
        assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["input", "tasks", 1, "key"])
    done = await crew.complete(lease, children=[plain, new])
    (error,) = done["errors"]
    assert (done["completed"], error["code"], error["path"]) == (0, "INVALID_CHILDREN", ["children", "1", "key"])
    assert await count(crew) == before
    assert (await crew.complete(lease, children=[plain]))["completed"] == 1


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
@pytest.mark.parametrize("state", ENDED)
async def test_one_that_has_ended_is_in_nobodys_way(crew: Crew, state: str, policy: str) -> None:
    old = await existing(crew, state)
    new = await one(crew, onDuplicate=policy)
    assert new != old
    assert [x["task"]["id"] for x in await crew.claim(9)] == [new]


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
async def test_other_channels_and_keys_are_in_nobodys_way(crew: Crew, policy: str) -> None:
    await one(crew)
    made = await crew.create(
        {**K, "channel": "d", "onDuplicate": policy}, {"name": "x", "key": "K", "onDuplicate": policy}
    )
    assert [t["state"] for t in made["tasks"]] == ["READY", "READY"]
    assert await count(crew) == 3


@pytest.mark.parametrize("policy", ["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"])
async def test_without_a_key_a_policy_has_no_effect(crew: Crew, policy: str) -> None:
    await crew.create(*({"name": n, "onDuplicate": policy} for n in "ab"), {"name": "c", "onDuplicate": None})
    assert names(await crew.claim(9)) == ["a", "b", "c"]


async def test_the_oldest_that_has_not_ended_is_answered(crew: Crew) -> None:
    ended = await existing(crew, "SUCCEEDED")
    oldest = await existing(crew, "SCHEDULED")
    for more in ({"onDuplicate": "ALLOW"}, {"priority": 9}):
        await one(crew, **more)
    assert await one(crew, onDuplicate="RETURN_EXISTING") == oldest != ended


async def test_earlier_tasks_of_the_same_call_count(crew: Crew) -> None:
    existing_one = {**K, "onDuplicate": "RETURN_EXISTING"}
    made = await crew.create({**existing_one, "name": "first"}, existing_one, {"name": "x"}, existing_one)
    assert [t["name"] for t in made["tasks"]] == ["first", "first", "x", "first"]
    assert await count(crew) == 2
    reject = {"key": "other", "name": "r", "onDuplicate": "REJECT"}
    with pytest.raises(Refused) as refused:
        await crew.create(reject, {"name": "x"}, reject)
    assert (refused.value.code, refused.value.path) == ("DUPLICATE_KEY", ["input", "tasks", 2, "key"])
    # A later one of another policy does not look back.
    made = await crew.create(
        reject, {"key": "other", "name": "m"}, {"key": "other", "name": "a", "onDuplicate": "ALLOW"}
    )
    assert [t["state"] for t in made["tasks"]] == ["READY"] * 3
    assert await count(crew) == 5


async def test_earlier_groups_of_the_same_call_count(crew: Crew) -> None:
    query = (
        "mutation($input: CreateTaskGroupsInput!) { createTaskGroups(input: $input) { groups { tasks { id name } } } }"
    )

    def groups(policy: str) -> dict[str, Any]:
        task = {"name": "t", "channel": "c", "key": policy, "onDuplicate": policy}
        return {"groups": [{"name": str(n), "tasks": [{"name": "x", "channel": "c"}, task]} for n in range(2)]}

    answer = (await crew.ask(query, input=groups("RETURN_EXISTING")))["createTaskGroups"]["groups"]
    assert answer[0]["tasks"][1] == answer[1]["tasks"][1]
    assert await count(crew) == 3
    with pytest.raises(Refused) as refused:
        await crew.ask(query, input=groups("REJECT"))
    assert refused.value.code == "DUPLICATE_KEY"
    assert refused.value.path == ["input", "groups", 1, "tasks", 1, "key"]
    assert await count(crew) == 3


async def test_a_child_can_hang_from_an_existing_task_of_its_group_by_ref(crew: Crew) -> None:
    made = await crew.create({**K, "name": "old"})
    old = made["tasks"][0]["id"]
    tasks = await crew.create_tasks(
        made["taskGroup"]["id"],
        {"name": "child", "parents": [{"ref": "r"}]},
        {**K, "ref": "r", "onDuplicate": "RETURN_EXISTING", "parents": [{"ref": "x"}]},
        {"name": "x", "ref": "x", "channel": "d"},
    )
    assert [(t["name"], t["state"]) for t in tasks] == [("child", "BLOCKED"), ("old", "READY"), ("x", "READY")]
    assert (await crew.task(tasks[0]["id"], "parents { id }"))["parents"] == [{"id": old}]
    assert (await crew.task(old, "parentCount"))["parentCount"] == 0
    await crew.complete(*await crew.claim())
    assert names(await crew.claim()) == ["child"]


async def test_a_child_cannot_hang_from_an_existing_task_of_another_group(crew: Crew) -> None:
    await one(crew)
    group = (await crew.create({"name": "spawner", "channel": "s"}))["taskGroup"]["id"]
    (lease,) = await crew.claim(channels=("s",))
    before = await count(crew)
    tasks: list[dict[str, Any]] = [
        {**K, "channel": "c", "ref": "r", "onDuplicate": "RETURN_EXISTING"},
        {"name": "child", "channel": "c", "parents": [{"ref": "r"}]},
    ]
    for call in (lambda: crew.create(*tasks), lambda: crew.create_tasks(group, *tasks)):
        with pytest.raises(Refused) as refused:
            await call()
        assert (refused.value.code, refused.value.path) == ("BAD_INPUT", ["input", "tasks", 1, "parents", 0, "ref"])
    (error,) = (await crew.complete(lease, children=tasks))["errors"]
    assert (error["code"], error["path"]) == ("INVALID_CHILDREN", ["children", "1", "parents", "0", "ref"])
    assert await count(crew) == before
    assert (await crew.complete(lease))["completed"] == 1


async def test_a_cycle_closed_by_the_task_that_is_answered_is_refused(crew: Crew) -> None:
    with pytest.raises(Refused) as refused:
        await crew.create(
            {**K, "ref": "a", "parents": [{"ref": "b"}]},
            {"name": "b", "ref": "b", "parents": [{"ref": "again"}]},
            {**K, "ref": "again", "onDuplicate": "RETURN_EXISTING"},
        )
    assert refused.value.code == "BAD_INPUT"
    assert refused.value.path[:2] == ["input", "tasks"]
    assert await count(crew) == 0


@pytest.mark.parametrize("where", ["this group", "another group"])
async def test_a_continuation_answered_with_an_existing_task_makes_nothing(crew: Crew, where: str) -> None:
    made = await crew.create({"name": "spawner", "channel": "s"})
    if where == "this group":
        (old,) = await crew.create_tasks(made["taskGroup"]["id"], K)
    else:
        old = (await crew.create(K))["tasks"][0]
    (lease,) = await crew.claim(channels=("s",))
    done = await crew.complete(lease, children=[{**K, "channel": "c", "onDuplicate": "RETURN_EXISTING"}])
    assert (done["completed"], done["errors"]) == (1, [])
    assert await count(crew) == 2
    task = await crew.task(old["id"], "state parentCount spawnedBy { id }")
    assert task == {"state": "READY", "parentCount": 0, "spawnedBy": None}


# -- repeats and races --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["MERGE", "RETURN_EXISTING", "REJECT", "ALLOW"])
async def test_a_repeat_is_no_duplicate_of_what_it_made(crew: Crew, policy: str) -> None:
    group, id = str(uuid.uuid4()), str(uuid.uuid4())
    first = await crew.create({**K, "onDuplicate": policy}, {"name": "x"}, id=group)
    assert await crew.create({**K, "onDuplicate": policy}, {"name": "x"}, id=group) == first
    own = {"name": "own", "key": "own", "id": id, "onDuplicate": policy}
    made = await crew.create_tasks(group, own)
    assert made[0]["id"] == id
    assert await crew.create_tasks(group, own) == made
    assert await count(crew) == 3


@pytest.mark.parametrize("policy", ["RETURN_EXISTING", "REJECT"])
async def test_of_many_creations_at_once_one_is_made(crew: Crew, policy: str) -> None:
    async with crew_on(crew.dsn) as other:
        calls = [c.create({**K, "onDuplicate": policy}, {"name": str(n)}) for n in range(10) for c in (crew, other)]
        found = await asyncio.gather(*calls, return_exceptions=True)
    made = [f for f in found if isinstance(f, dict)]
    refused = [f for f in found if isinstance(f, Refused)]
    assert len(made) + len(refused) == 20
    assert len({f["tasks"][0]["id"] for f in made}) == 1
    if policy == "REJECT":
        assert (len(made), {r.code for r in refused}) == (1, {"DUPLICATE_KEY"})
    else:
        assert refused == []
    assert await count(crew) == 1 + len(made)


async def test_a_refused_creation_does_not_hurt_those_that_came_with_it(crew: Crew) -> None:
    await one(crew)
    calls = [
        crew.create({"name": "x", "key": "k" if n == 3 else None, "onDuplicate": "REJECT", "channel": "c"})
        for n in range(6)
    ]
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert [f.code if isinstance(f, Refused) else "made" for f in found] == ["made"] * 3 + ["DUPLICATE_KEY"] + [
        "made"
    ] * 2
    assert await count(crew) == 6


async def test_bad_children_hurt_no_other_result_of_the_call(crew: Crew) -> None:
    await one(crew)
    await crew.create(*({"name": n, "channel": "s"} for n in "abc"))
    leases = await crew.claim(3, ("s",))
    child = {"name": "x", "channel": "c", "key": "new", "onDuplicate": "REJECT"}
    results = [{"lease": x["id"], "children": [child]} for x in leases]
    done = (await crew.ask(COMPLETE, input={"results": results}))["completeTasks"]
    assert done["completed"] == 1
    assert [(e["code"], e["path"]) for e in done["errors"]] == [("INVALID_CHILDREN", ["children", "0", "key"])] * 2
    assert await count(crew) == 5


# -- bad input ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"key": ""}, ["key"]),
        ({"key": "k\0"}, ["key"]),
        ({"key": "\ud800"}, ["key"]),
        ({"key": "k" * 100_000}, ["key"]),
        ({"key": 5}, ["key"]),
        ({"key": "k", "onDuplicate": "IGNORE"}, ["onDuplicate"]),
        ({"key": "k", "onDuplicate": "merge"}, ["onDuplicate"]),
    ],
    ids=lambda x: repr(x)[:30],
)
async def test_a_bad_key_or_policy_is_refused(crew: Crew, fields: dict[str, Any], path: list[str]) -> None:
    tasks = [{"name": "x", "channel": "c"}, {"name": "t", "channel": "c", **fields}]
    body = json.dumps({"query": CREATE, "variables": {"input": {"name": "g", "tasks": tasks}}})
    answer = await crew.http.post("/graphql", content=body, headers={"content-type": "application/json"})
    (error,) = answer.json()["errors"]
    assert error["message"]
    assert error["extensions"]["code"] == "BAD_INPUT"
    assert error["extensions"]["path"][:4] == ["input", "tasks", 1, *path]
    assert await count(crew) == 0
