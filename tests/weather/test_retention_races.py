"""Retention against whoever begins again, makes or claims what is old; and folding inside a transaction that goes on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from db.progress import fold_groups
from resolvers import retention
from tests.support.crew import Crew
from tests.support.joins import group, id_of, state, t, work
from tests.support.races import NS, Stage, stopped, two_servers
from tests.support.steering import delete_expired, fold, progress, reset

OLD = "update done set at = now() - interval '10 days'"
OLD_GROUPS = "update group_tally set settled_at = now() - interval '10 days'"
HOLDS = {
    "resets a task": "select from done where no = (select min(no) from done) for update",
    "hangs one below it": "select from done where no = (select min(no) from done) for key share",
    "makes one in it": "select from task_group for key share",
}


async def old_group(crew: Crew) -> str:
    g = await group(crew, t("a"), t("b"))
    await work(crew)
    await fold(crew)
    await crew.sql(OLD)
    await crew.sql(OLD_GROUPS)
    return g


@pytest.mark.parametrize("who", HOLDS)
async def test_a_group_in_which_somebody_does_something_is_passed_over(dsn: str, who: str) -> None:
    async with two_servers(dsn) as (one, _, a, _):
        g = await old_group(one)
        async with stopped(a, HOLDS[who]):
            assert await delete_expired(one, 3) == 0
        assert await one.states(g) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}
        assert await delete_expired(one, 3) == 2


async def test_a_group_that_is_being_reset_is_not_deleted(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, _):
        g = await old_group(one)
        async with stopped(a, "select from edge for update; select from task for update"):
            resetting = asyncio.ensure_future(reset(one, id_of("a")))
            deleting = asyncio.ensure_future(delete_expired(two, 3))
            await asyncio.wait([resetting, deleting], timeout=0.3)
        await asyncio.gather(resetting, deleting)
        left = await one.sql("select from task_group")
        assert (resetting.result(), deleting.result()) == (({"a": "READY"}, 0) if left else ({}, 2))
        if left:
            assert await one.states(g) == {"a": "READY", "b": "SUCCEEDED"}


async def test_of_two_servers_that_forget_at_once_each_task_is_counted_by_one(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, _, eye):
        for n in range(30):
            await group(one, t(f"{n}"), t(f"{n}+", f"{n}"))
        while leases := await one.claim(100):
            await one.complete(*leases)
        await fold(one)
        await one.sql(OLD)
        await one.sql(OLD_GROUPS)
        counts = await asyncio.gather(*(delete_expired(crew, 3) for crew in (one, two, one, two)))
        assert sum(counts) + await delete_expired(one, 3) == 60
        assert await eye.fetchval("select count(*) from task") == 0
        assert await eye.fetchval("select count(*) from gone") == 90


async def test_a_task_claimed_just_then_keeps_its_unfinished_group(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with two_servers(dsn) as (one, two, _, _):
        kept, gone = await group(one, t("x")), await group(one, t("y", delaySeconds=100))
        await one.sql("update task_group set created_at = now() - interval '10 days'")
        looked = retention.rows.running_groups

        async def claimed_after(*args: Any) -> list[int]:
            found = await looked(*args)
            await two.claim()
            return found

        monkeypatch.setattr(retention.rows, "running_groups", claimed_after)
        assert await delete_expired(one, 3, unfinished=True) == 1
        assert [str(row["id"]) for row in await one.sql("select id from task_group")] == [kept]
        assert gone != kept
        assert await state(one, "x") == "RUNNING"


@pytest.mark.parametrize("who", ["resets a task", "hangs one below it"])
async def test_old_tasks_with_which_somebody_does_something_are_passed_over(dsn: str, who: str) -> None:
    async with two_servers(dsn) as (one, _, a, _):
        g = await group(one, t("a"), t("b"), t("open"))
        await work(one, limit=2)
        await one.sql(OLD)
        core = one.services.core
        async with stopped(a, HOLDS[who]):
            assert await retention.delete_old_tasks(core, 3) == 1
        assert await one.states(g) == {"a": "SUCCEEDED", "open": "READY"}
        assert await retention.delete_old_tasks(core, 3) == 1
        assert await progress(one, g) == ({"READY": 1}, 0)


@pytest.mark.parametrize("later", [False, True])
async def test_a_fold_inside_a_transaction_counts_what_that_writes_once(stage: Stage, later: bool) -> None:
    """`later`: a transaction that began after it has ended before its fold, so that its number lies below those in the snapshot."""
    tell = (
        "insert into event (ns, kind, state, nos, groups, channels, workgroups, attempts) "
        "select 1, 1, 2, array[$1::bigint], array[group_no], array[1001], array[0], array[0] from task_group limit 1"
    )
    await stage.graph({"x": ()})
    async with stage.a.transaction():
        await stage.a.execute(tell, 901)
        if later:
            await stage.b.execute(tell, 902)
        assert await fold_groups(stage.a, NS) == 1
        await stage.a.execute(tell, 903)
    await stage.b.execute(tell, 904)
    for folds in (1, 0):
        assert await fold_groups(stage.c, NS) == folds
        assert await stage.eye.fetchval("select total from group_tally") == 4 + later
