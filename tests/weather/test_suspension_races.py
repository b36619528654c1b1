"""Races of suspensions: against claims, resumes and the loop that moves tasks aside.

Forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to).
"""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from db.clock import (
    park_held,
    parked_free,
    resume_workgroup,
    suspend_workgroups,
    unpark,
)
from resolvers.draft import new_id
from tests.support.crew import crew_on
from tests.support.races import (
    LONG,
    NS,
    WORKGROUP,
    Stage,
    stage_on,
)

# -- suspensions -----------------------------------------------------------------------------------------------------


async def claim_in_the_middle(stage: Stage, claim_id: UUID) -> tuple[Any, asyncio.Task[Any]]:
    """A claim on `b` that has its snapshot and waits: `a` holds its claim id, in the transaction that is returned."""
    holds = stage.a.transaction()
    await holds.start()
    await stage.a.execute("insert into claim (ns, claim_id, lease_no, asked) values (1, $1, 0, '')", claim_id)
    return holds, await stage.waiting(stage.claim(10, stage.b, claim_id=claim_id))


async def test_a_claim_that_started_before_a_suspension_may_hand_out_and_one_after_may_not(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()}, workgroup=WORKGROUP)
    holds, task = await claim_in_the_middle(stage, new_id())
    (held,) = await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
    assert held.workgroup == WORKGROUP
    await stage.graph({"z": ()}, workgroup=WORKGROUP)
    assert await stage.claim(10) == []
    await holds.rollback()
    assert {r.no for r in await task} == {no["x"], no["y"]}
    assert await stage.claim(10) == []


async def test_a_suspension_does_not_wait_for_claims_nor_claims_for_it(stage: Stage) -> None:
    no = await stage.graph({"x": ()}, workgroup=WORKGROUP)
    other = await stage.graph({"free": ()})
    async with stage.a.transaction():
        await suspend_workgroups(stage.a, NS, [(WORKGROUP, 60, None)])
        # Not committed yet: it may still be handed out.
        assert {r.no for r in await stage.claim(10, stage.b)} == {no["x"], other["free"]}


async def test_tasks_made_while_a_suspension_is_being_made_are_held(stage: Stage) -> None:
    async with stage.a.transaction():
        await suspend_workgroups(stage.a, NS, [(WORKGROUP, 60, None)])
        no = await stage.graph({"x": ()}, workgroup=WORKGROUP)
    later = await stage.graph({"y": ()}, workgroup=WORKGROUP)
    assert await stage.claim(10) == []
    assert await resume_workgroup(stage.c, NS, WORKGROUP)
    assert {r.no for r in await stage.claim(10)} == {no["x"], later["y"]}


async def test_the_longer_of_two_suspensions_at_once_holds(stage: Stage) -> None:
    for first, second in ((100.0, 10.0), (200.0, 300.0)):
        async with stage.a.transaction():
            await suspend_workgroups(stage.a, NS, [(WORKGROUP, first, "a")])
            task = await stage.waiting(suspend_workgroups(stage.b, NS, [(WORKGROUP, second, "b")]))
        assert [h.workgroup for h in await task] == ([WORKGROUP] if second > first else [])
        left = await stage.eye.fetchval("select extract(epoch from until - now())::float8 from hold")
        assert left == pytest.approx(max(first, second), abs=5)


async def test_a_resume_that_waits_for_a_longer_suspension_ends_that_too(stage: Stage) -> None:
    await suspend_workgroups(stage.c, NS, [(WORKGROUP, 10, None)])
    no = await stage.graph({"x": ()}, workgroup=WORKGROUP)
    async with stage.a.transaction():
        await suspend_workgroups(stage.a, NS, [(WORKGROUP, 1000, None)])
        task = await stage.waiting(resume_workgroup(stage.b, NS, WORKGROUP))
    assert await task is True
    assert await stage.count("hold") == 0
    assert [r.no for r in await stage.claim(10)] == [no["x"]]
    assert [r[0] for r in await stage.eye.fetch("select kind from event where kind in (16, 17) order by seq")] == [
        16,
        16,
        17,
    ]


async def test_a_suspension_that_waits_for_a_resume_holds(stage: Stage) -> None:
    await suspend_workgroups(stage.c, NS, [(WORKGROUP, 1000, "old")])
    await stage.graph({"x": ()}, workgroup=WORKGROUP)
    async with stage.a.transaction():
        assert await resume_workgroup(stage.a, NS, WORKGROUP)
        task = await stage.waiting(suspend_workgroups(stage.b, NS, [(WORKGROUP, 10, "new")]))
    assert [h.workgroup for h in await task] == [WORKGROUP]
    (hold,) = await stage.eye.fetch("select reason, until < now() + interval '11 s' as short from hold")
    assert (hold["reason"], hold["short"]) == ("new", True)
    assert await stage.claim(10) == []


async def test_rows_parked_while_a_resume_runs_are_freed_by_the_sweep(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()}, workgroup=WORKGROUP)
    await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
    async with stage.a.transaction():
        assert (await park_held(stage.a, NS, 100)).count == 2
        assert await resume_workgroup(stage.b, NS, WORKGROUP)
        assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 0
        assert await parked_free(stage.b, NS) == []
    assert await stage.claim(10) == []
    assert await parked_free(stage.b, NS) == [WORKGROUP]
    assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 2
    assert {r.no for r in await stage.claim(10)} == set(no.values())


async def test_a_server_frees_rows_that_were_parked_while_a_resume_ran(dsn: str) -> None:
    async with stage_on(dsn) as stage:
        no = await stage.graph({"x": (), "y": ()}, workgroup=WORKGROUP)
        await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
        assert (await park_held(stage.a, NS, 100)).count == 2
        await stage.eye.execute("delete from hold")
        async with crew_on(dsn) as crew:
            leases = await crew.claim(10, waitSeconds=LONG)
            assert len(leases) == len(no)


async def test_parking_passes_by_what_a_claim_takes_and_a_claim_by_what_is_parked(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()}, workgroup=WORKGROUP)
    async with stage.a.transaction():
        (taken,) = await stage.claim(1, stage.a)
        await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
        assert (await park_held(stage.b, NS, 100)).count == 1
    await resume_workgroup(stage.c, NS, WORKGROUP)
    async with stage.a.transaction():
        assert (await unpark(stage.a, NS, WORKGROUP, 100)).count == 1
        assert await stage.claim(10) == []
        assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 0
    assert [r.no for r in await stage.claim(10)] == [n for n in no.values() if n != taken.no]


async def test_two_servers_that_unpark_at_once_move_each_task_once(stage: Stage) -> None:
    await stage.graph({f"t{n}": () for n in range(30)}, workgroup=WORKGROUP)
    await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
    assert (await park_held(stage.c, NS, 100)).count == 30
    await resume_workgroup(stage.c, NS, WORKGROUP)
    async with stage.a.transaction():
        assert (await unpark(stage.a, NS, WORKGROUP, 10)).count == 10
        assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 20
    assert (await stage.count("ready"), await stage.count("parked")) == (30, 0)
