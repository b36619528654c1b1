"""One run for each due time: servers that meet at it, servers and connections that die in it, calls that come in between."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

from tests.support.crew import Crew, crew_on
from tests.support.process import server_process
from tests.support.races import connected, servers_wait_for_locks, two_servers
from tests.support.schedules import CREATE, DELETE, GROUP, create, groups, make_due, moved_on, seen, update
from tests.support.wait import until

HELD = "lock table task_group in share mode"
"""Whoever makes a group waits in the middle of its transaction."""
NIGHTLY = {"name": "s", "cron": "0 0 1 1 *", "group": GROUP}


async def test_a_server_passes_over_what_another_is_running(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await create(one)
        stop = a.transaction()
        await stop.start()
        await a.execute(HELD)
        await make_due(one, made["id"])
        await servers_wait_for_locks(eye)
        assert await two.services.schedules.run_due() == 0
        await stop.rollback()
        after = await moved_on(two, made["id"])
        assert await two.services.schedules.run_due() == 0
        assert after["lastGroup"] is not None
        assert await groups(two) == 1


async def test_a_run_whose_connection_dies_is_undone_and_run_by_whoever_comes(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await create(one)
        stop = a.transaction()
        await stop.start()
        await a.execute(HELD)
        await make_due(one, made["id"])
        await servers_wait_for_locks(eye)
        killed = await eye.fetchval(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = current_database()"
            " and application_name = 'crew' and wait_event_type = 'Lock'"
        )
        assert killed >= 1
        await stop.rollback()
        after = await moved_on(two, made["id"])
        assert after["nextRunAt"] == made["nextRunAt"]
        assert await groups(two) == 1


async def test_many_servers_make_one_run_for_each_due_time(dsn: str) -> None:
    async with AsyncExitStack() as stack:
        crews: list[Crew] = [await stack.enter_async_context(crew_on(dsn)) for _ in range(4)]
        for n in range(30):
            await create(crews[0], name=str(n))
        await crews[0].sql("update schedule set next_run_at = now()")
        ran = await asyncio.gather(*(crew.services.schedules.run_due() for crew in crews for _ in range(3)))
        assert 0 < max(ran) <= 30
        await until(lambda: _none_due(crews[0]))
        assert await groups(crews[0]) == 30
        rows = await crews[0].sql("select count(distinct last_group)::int as n from schedule")
        assert rows[0]["n"] == 30


async def _none_due(crew: Crew) -> bool:
    return (await crew.sql("select not exists (select from schedule where next_run_at <= now()) as none"))[0]["none"]


async def test_a_change_waits_for_the_run_and_comes_after_it(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await create(one)
        stop = a.transaction()
        await stop.start()
        await a.execute(HELD)
        await make_due(one, made["id"])
        await servers_wait_for_locks(eye)
        paused = asyncio.create_task(update(two, made["id"], isPaused=True))
        await servers_wait_for_locks(eye, 2)
        await stop.rollback()
        after = await paused
        assert (after["isPaused"], after["nextRunAt"]) == (True, None)
        assert after["lastGroup"] is not None
        assert await seen(one, made["id"]) == after
        assert await groups(one) == 1


async def test_what_is_deleted_while_it_runs_has_run(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await create(one)
        stop = a.transaction()
        await stop.start()
        await a.execute(HELD)
        await make_due(one, made["id"])
        await servers_wait_for_locks(eye)
        deleted = asyncio.create_task(two.ask(DELETE, id=made["id"]))
        await servers_wait_for_locks(eye, 2)
        await stop.rollback()
        assert (await deleted)["deleteSchedule"] == {"id": made["id"]}
        assert await groups(one) == 1
        assert (await one.sql("select count(*)::int as n from schedule"))[0]["n"] == 0


async def test_a_run_whose_server_is_killed_is_undone_and_run_by_the_next(dsn: str) -> None:
    with server_process(DATABASE_URL=dsn) as process:
        await asyncio.to_thread(process.start)
        async with connected(dsn, 2) as (a, eye):
            made = await asyncio.to_thread(process.ask, CREATE, input=NIGHTLY)
            id = made["createSchedule"]["schedule"]["id"]
            stop = a.transaction()
            await stop.start()
            await a.execute(HELD)
            await eye.execute("update schedule set next_run_at = now()")
            await servers_wait_for_locks(eye)
            await asyncio.to_thread(process.kill)
            await stop.rollback()
            async with crew_on(dsn) as crew:
                after = await moved_on(crew, id)
                assert after["lastGroup"] is not None
                assert await groups(crew) == 1
