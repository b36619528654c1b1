"""Races of creations: children hung under tasks that end, the same ids made twice, delays that end.

Forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to).
"""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from db.clock import (
    promote_scheduled,
)
from db.create import create_tasks, lock_parents
from resolvers.draft import new_id
from tests.support.races import (
    NS,
    Stage,
    complete,
    group_of,
    hung_under,
    servers_wait_for_locks,
    two_servers,
)

# -- children hung under tasks that end ------------------------------------------------------------------------------


async def test_a_completion_that_waits_for_a_child_to_be_hung_runs_again_and_frees_it(stage: Stage) -> None:
    no = await stage.graph({"p": ()})
    (lease,) = await stage.claim()
    parent, group = await group_of(stage, no["p"])
    async with stage.a.transaction():
        (row,) = await lock_parents(stage.a, NS, [parent])
        assert row.place == "open"
        (child,) = await create_tasks(stage.a, NS, hung_under("child", group, no["p"]))
        task = await stage.waiting(complete(stage.b, lease))
    found = await task
    assert (found.again, found.ords, found.nos) == (1, None, None)
    assert await stage.place(no["p"]) == "RUNNING"
    found = await complete(stage.b, lease)
    assert (found.again, found.ords, found.nos) == (0, [1], [child.no])
    assert await stage.place(child.no) == "READY"


async def test_a_child_whose_hanging_waits_for_the_completion_of_its_parent_finds_it_done(stage: Stage) -> None:
    no = await stage.graph({"p": ()})
    (lease,) = await stage.claim()
    parent, group = await group_of(stage, no["p"])
    async with stage.a.transaction():
        await complete(stage.a, lease)
        task = await stage.waiting(lock_parents(stage.b, NS, [parent]))
    assert [r.place for r in await task] == ["moved"]
    assert [r.place for r in await lock_parents(stage.b, NS, [parent])] == ["succeeded"]
    (child,) = await create_tasks(stage.b, NS, hung_under("child", group, no["p"], open=0))
    assert await stage.place(child.no) == "READY"


@pytest.mark.parametrize("first", ["create", "complete"])
async def test_a_server_never_strands_a_child_hung_under_a_task_that_ends(dsn: str, first: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "p"})
        group, parent = made["taskGroup"]["id"], made["tasks"][0]["id"]
        (lease,) = await one.claim()
        create = lambda: two.create_tasks(group, {"name": "child", "parents": [{"id": parent}]})  # noqa: E731
        async with a.transaction():
            await a.execute("select from lease for update")
            calls = (
                [create, lambda: one.complete(lease)] if first == "create" else [lambda: one.complete(lease), create]
            )
            tasks = []
            for n, call in enumerate(calls, 1):
                tasks.append(asyncio.create_task(call()))
                await servers_wait_for_locks(eye, n)
        answers = await asyncio.gather(*tasks)
        completed = answers[1 if first == "create" else 0]
        assert (completed["completed"], completed["errors"]) == (1, [])
        assert await one.states(group) == {"p": "SUCCEEDED", "child": "READY"}
        (lease,) = await one.claim(10)
        assert lease["task"]["name"] == "child"


async def test_a_claim_passes_by_a_ready_task_that_gets_a_child_and_finds_it_later(stage: Stage) -> None:
    no = await stage.graph({"p": ()})
    parent, group = await group_of(stage, no["p"])
    async with stage.a.transaction():
        assert [r.place for r in await lock_parents(stage.a, NS, [parent])] == ["open"]
        assert await stage.claim(10, stage.b) == []
        (child,) = await create_tasks(stage.a, NS, hung_under("child", group, no["p"]))
    (lease,) = await stage.claim(10, stage.b)
    assert lease.no == no["p"]
    assert (await complete(stage.b, lease)).nos == [child.no]


async def test_a_claim_that_takes_the_parent_first_makes_the_creator_look_again(stage: Stage) -> None:
    no = await stage.graph({"p": ()})
    parent, group = await group_of(stage, no["p"])
    async with stage.a.transaction():
        (lease,) = await stage.claim(1, stage.a)
        task = await stage.waiting(lock_parents(stage.b, NS, [parent]))
    assert [r.place for r in await task] == ["moved"]
    async with stage.b.transaction():
        assert [r.place for r in await lock_parents(stage.b, NS, [parent])] == ["open"]
        (child,) = await create_tasks(stage.b, NS, hung_under("child", group, no["p"]))
    assert (await complete(stage.c, lease)).nos == [child.no]


async def test_a_child_hung_under_a_blocked_task_that_is_being_freed_waits_for_it(stage: Stage) -> None:
    no = await stage.graph({"p": (), "middle": ("p",)})
    (lease,) = await stage.claim()
    parent, group = await group_of(stage, no["middle"])
    async with stage.a.transaction():
        await complete(stage.a, lease)
        task = await stage.waiting(lock_parents(stage.b, NS, [parent]))
    assert [r.place for r in await task] == ["moved"]
    async with stage.b.transaction():
        assert [r.place for r in await lock_parents(stage.b, NS, [parent])] == ["open"]
        (child,) = await create_tasks(stage.b, NS, hung_under("child", group, no["middle"]))
    (lease,) = await stage.claim(10)
    assert (await complete(stage.c, lease)).nos == [child.no]


# -- creations -------------------------------------------------------------------------------------------------------


async def test_a_group_made_twice_at_once_on_two_connections_is_made_once(stage: Stage) -> None:
    group, ids = new_id(), [new_id(), new_id()]
    tasks = {"x": (), "child": ("x",)}
    async with stage.a.transaction():
        await stage.graph(tasks, stage.a, group_id=group, ids=ids)
        task = await stage.waiting(stage.graph(tasks, stage.b, group_id=group, ids=ids))
    with pytest.raises(asyncpg.UniqueViolationError):
        await task
    assert [await stage.count(t) for t in ("task_group", "task", "edge", "ready", "blocked")] == [1, 2, 1, 1, 1]


@pytest.mark.parametrize("ids", ["of the group", "of the tasks"])
async def test_a_group_made_twice_at_once_by_two_servers_is_one_and_both_are_told_of_it(dsn: str, ids: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create({"name": "so that the channel is known"})
        (spare,) = await one.claim(1)
        await one.complete(spare)
        group = str(new_id())
        tasks: list[dict[str, Any]] = [{"name": "x", "ref": "x"}, {"name": "child", "parents": [{"ref": "x"}]}]
        if ids == "of the tasks":
            tasks = [{**t, "id": str(new_id())} for t in tasks]
        async with a.transaction():
            await a.execute(
                "insert into task_group (ns, group_no, id, name, made_upto) values (1, -1, $1, '', 0)", group
            )
            calls = [asyncio.create_task(s.create(*tasks, id=group)) for s in (one, two)]
            await servers_wait_for_locks(eye, 2)
            await a.execute("delete from task_group where group_no = -1")
        first, second = await asyncio.gather(*calls)
        assert first["taskGroup"] == second["taskGroup"] == {"id": group}
        assert [t["id"] for t in first["tasks"]] == [t["id"] for t in second["tasks"]]
        assert (
            len(
                await one.sql(
                    "select from task where group_no in (select group_no from task_group where id = $1)", group
                )
            )
            == 2
        )
        assert await eye.fetchval("select count(*) from edge") == 1
        assert await eye.fetchval("select count(*) from ready") == 1


async def test_tasks_with_ids_made_twice_at_once_in_one_group_are_made_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "p"})
        group, parent = made["taskGroup"]["id"], made["tasks"][0]["id"]
        ids = [str(new_id()), str(new_id())]
        tasks = [
            {"name": "x", "id": ids[0], "parents": [{"id": parent}]},
            {"name": "y", "id": ids[1]},
        ]
        async with a.transaction():
            await a.execute("lock table event in share mode")
            calls = [asyncio.create_task(s.create_tasks(group, *tasks)) for s in (one, two)]
            await servers_wait_for_locks(eye, 2)
        for answer in await asyncio.gather(*calls):
            assert [(t["id"], t["state"]) for t in answer] == [(ids[0], "BLOCKED"), (ids[1], "READY")]
        assert await eye.fetchval("select count(*) from task") == 3
        assert await eye.fetchval("select count(*) from edge") == 1


# -- delays ----------------------------------------------------------------------------------------------------------


async def test_two_servers_that_promote_at_once_make_each_task_ready_once(stage: Stage) -> None:
    no = await stage.graph({f"t{n}": () for n in range(30)}, delay=60)
    await stage.eye.execute("update scheduled set run_at = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await promote_scheduled(stage.a, NS, 10)).count == 10
        assert (await promote_scheduled(stage.b, NS, 100)).count == 20
    assert (await promote_scheduled(stage.b, NS, 100)).count == 0
    assert (await stage.count("ready"), await stage.count("scheduled")) == (30, 0)
    assert await stage.eye.fetchval("select sum(cardinality(nos)) from event where kind = 3") == 30
    assert len({r.no for r in await stage.claim(100)}) == len(no)


async def test_what_a_server_that_dies_was_promoting_is_promoted_by_another(stage: Stage) -> None:
    await stage.graph({f"t{n}": () for n in range(3)}, delay=60)
    await stage.eye.execute("update scheduled set run_at = now() - interval '1 s'")
    undone = stage.a.transaction()
    await undone.start()
    assert (await promote_scheduled(stage.a, NS, 100)).count == 3
    assert (await promote_scheduled(stage.b, NS, 100)).count == 0
    await undone.rollback()
    assert (await promote_scheduled(stage.b, NS, 100)).count == 3
