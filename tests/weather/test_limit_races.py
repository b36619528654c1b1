"""Races of claims under limits. Forced: one holds the turn, the other is seen to wait for it."""

from __future__ import annotations

import pytest

from db.cap import CHANNEL, WORKGROUP, Asked, Rate, admit, set_cap, take_turn
from db.claim import NEEDS_TURN, WITH_TURN, Claimed, claim_tasks, claim_tasks_full
from db.pool import Connection
from tests.support import races
from tests.support.races import NS, START, Stage, request

LIMITS = {
    "of a channel": (CHANNEL, races.CHANNEL, Asked(max_running=3, max_running_given=True)),
    "of a workgroup": (WORKGROUP, races.WORKGROUP, Asked(max_running=3, max_running_given=True)),
    "of starts": (WORKGROUP, races.WORKGROUP, Asked(rate=Rate(3, 60.0), rate_given=True)),
}
limited = pytest.mark.parametrize("limit", LIMITS)


async def limit_by(stage: Stage, limit: str) -> None:
    await set_cap(stage.c, NS, *LIMITS[limit])
    await stage.graph({f"t{n}": () for n in range(10)}, workgroup=races.WORKGROUP)
    await admit(stage.c, NS, 100)


async def claim_in_turn(connection: Connection, n: int) -> Claimed:
    async with connection.transaction():
        await take_turn(connection, NS)
        return await claim_tasks_full(connection, NS, [START], [request(n)], turn=True)


@limited
async def test_whoever_waits_for_the_turn_sees_what_the_other_took(stage: Stage, limit: str) -> None:
    await limit_by(stage, limit)
    async with stage.a.transaction():
        await take_turn(stage.a, NS)
        second = await stage.waiting(claim_in_turn(stage.b, 5))
        first = await claim_tasks_full(stage.a, NS, [START], [request(2)], turn=True)
    assert (len(first.rows), len((await second).rows)) == (2, 1)
    assert len((await claim_in_turn(stage.b, 5)).rows) == 0


@limited
async def test_without_the_turn_nothing_limited_is_taken(stage: Stage, limit: str) -> None:
    await limit_by(stage, limit)
    lean = await claim_tasks(stage.a, NS, [START], [request(5)])
    full = await claim_tasks_full(stage.a, NS, [START], [request(5)])
    assert (lean.rows, lean.again, full.rows, full.again) == ([], WITH_TURN, [], NEEDS_TURN)


async def test_what_is_not_limited_neither_locks_nor_waits(stage: Stage) -> None:
    await limit_by(stage, "of a workgroup")
    await stage.graph({"free": ()})
    async with stage.a.transaction():
        await take_turn(stage.a, NS)
        # The limited tasks stand before it; what claims choose from is met first, so only this one is asked for.
        await stage.c.execute("update ready set admitted = false")
        found = await claim_tasks(stage.b, NS, [START], [request(5)])
    assert [row.name for row in found.rows] == ["free"]


async def test_a_rate_that_is_reached_says_when_it_opens(stage: Stage) -> None:
    await limit_by(stage, "of starts")
    await claim_in_turn(stage.a, 3)
    found = await claim_in_turn(stage.a, 3)
    assert found.rows == []
    assert found.opens_in is not None
    assert 55 < found.opens_in <= 60


async def test_two_that_admit_at_once_take_no_task_twice(stage: Stage) -> None:
    await set_cap(stage.c, NS, *LIMITS["of a workgroup"])
    await stage.graph({f"t{n}": () for n in range(20)}, workgroup=races.WORKGROUP)
    await stage.c.execute(
        "with gone as (delete from ready returning *) insert into parked (ns, workgroup, rank, no, channel, group_no, attempt,"
        " remaining, failures, ready_at) select ns, workgroup, rank, no, channel, group_no, attempt, remaining, failures, ready_at"
        " from gone"
    )
    async with stage.a.transaction():
        assert (await admit(stage.a, NS, 100)).count == 6
        assert (await admit(stage.b, NS, 100)).count == 6
    assert (await stage.count("ready"), await stage.count("parked")) == (12, 8)
