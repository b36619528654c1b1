"""Suspending and resuming workgroups."""

# ruff: noqa: UP031 (documents are full of braces)

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from db.clock import park_held
from resolvers import workgroup as deciding
from resolvers.core import Rhythm
from resolvers.follow import move
from tests.support.crew import Crew, crew_on
from tests.support.wait import end_suspensions, until

FIELDS = "name suspendedUntil reason counts { state count }"


async def suspend(crew: Crew, name: str = "w", seconds: float = 100, **more: Any) -> dict[str, Any]:
    query = (
        "mutation($name: String!, $seconds: Float!, $reason: String) "
        "{ suspendWorkgroup(name: $name, seconds: $seconds, reason: $reason) { workgroup { %s } } }" % FIELDS
    )
    return (await crew.ask(query, name=name, seconds=seconds, **more))["suspendWorkgroup"]["workgroup"]


async def resume(crew: Crew, name: str = "w") -> dict[str, Any]:
    query = "mutation($name: String!) { resumeWorkgroup(name: $name) { workgroup { %s } } }" % FIELDS
    return (await crew.ask(query, name=name))["resumeWorkgroup"]["workgroup"]


async def workgroup(crew: Crew, name: str = "w") -> dict[str, Any]:
    query = "query($name: String!) { workgroup(name: $name) { %s } }" % FIELDS
    return (await crew.ask(query, name=name))["workgroup"]


def names(leases: list[dict[str, Any]]) -> list[str]:
    return [x["task"]["name"] for x in leases]


async def left(crew: Crew, end: str) -> float:
    now = (await crew.sql("select now() as now"))[0]["now"]
    return (datetime.fromisoformat(end) - now).total_seconds()


async def parked(crew: Crew) -> int:
    n: int = (await crew.sql("select count(*)::int as n from parked"))[0]["n"]
    return n


async def test_a_suspended_workgroup_hands_out_nothing_and_others_go_on(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"}, {"name": "b", "workgroup": "v"}, {"name": "c"})
    found = await suspend(crew, reason="429")
    assert (found["name"], found["reason"]) == ("w", "429")
    assert 90 < await left(crew, found["suspendedUntil"]) <= 100
    assert names(await crew.claim(9)) == ["b", "c"]


async def test_a_held_task_is_ready_and_says_what_holds_it(crew: Crew) -> None:
    made = await crew.create({"name": "a", "workgroup": "w"})
    id = made["tasks"][0]["id"]
    until_ = (await suspend(crew))["suspendedUntil"]
    expected = {"state": "READY", "heldBy": ["WORKGROUP_SUSPENDED"], "notBefore": until_}
    assert await crew.task(id, "state heldBy notBefore") == expected

    async def aside() -> bool:
        return await parked(crew) == 1

    await until(aside)
    assert await crew.task(id, "state heldBy notBefore") == expected
    await resume(crew)
    assert await crew.task(id, "state heldBy notBefore") == {"state": "READY", "heldBy": [], "notBefore": None}


async def test_it_covers_tasks_created_while_it_lasts(crew: Crew) -> None:
    await suspend(crew)
    made = await crew.create({"name": "a", "workgroup": "w"}, {"name": "b"})
    assert names(await crew.claim(9)) == ["b"]
    assert (await crew.task(made["tasks"][0]["id"], "heldBy"))["heldBy"] == ["WORKGROUP_SUSPENDED"]


async def test_it_covers_tasks_that_become_ready_while_it_lasts(crew: Crew) -> None:
    await crew.create({"name": "p", "ref": "p"}, {"name": "a", "workgroup": "w", "parents": [{"ref": "p"}]})
    await suspend(crew)
    await crew.complete(*await crew.claim())
    assert await crew.claim(9) == []
    await resume(crew)
    assert names(await crew.claim(9)) == ["a"]


async def test_what_runs_goes_on(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"})
    (lease,) = await crew.claim()
    await suspend(crew)
    assert (await crew.complete(lease))["completed"] == 1


async def test_a_shorter_suspension_never_shortens_a_longer_one(crew: Crew) -> None:
    first = await suspend(crew, seconds=1000, reason="long")
    second = await suspend(crew, seconds=10, reason="short")
    assert second["suspendedUntil"] == first["suspendedUntil"]
    assert second["reason"] == "long"
    assert (await suspend(crew, seconds=0))["suspendedUntil"] == first["suspendedUntil"]
    third = await suspend(crew, seconds=2000)
    assert 1990 < await left(crew, third["suspendedUntil"]) <= 2000


async def test_resuming_makes_its_tasks_claimable_in_order(crew: Crew) -> None:
    await crew.create(*({"name": str(n), "workgroup": "w", "priority": n % 2} for n in range(6)))
    await suspend(crew)
    assert await crew.claim(9) == []

    async def aside() -> bool:
        return await parked(crew) == 6

    await until(aside)
    found = await resume(crew)
    assert (found["suspendedUntil"], found["reason"]) == (None, None)
    assert names(await crew.claim(9)) == ["1", "3", "5", "0", "2", "4"]


async def test_of_many_the_first_are_back_when_the_call_returns_and_the_rest_soon(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "FIRST", 4)
    monkeypatch.setattr(deciding, "STEP", 3)
    async with crew_on(dsn, rhythm=Rhythm(floor=300)) as crew:
        await crew.create(*({"name": str(n), "workgroup": w} for w in ("w", "v") for n in range(12)))
        for name in ("w", "v"):
            await suspend(crew, name)
        core = crew.services.core
        assert (await move(core, lambda connection: park_held(connection, core.ns, 100))).count == 24
        await resume(crew)
        assert names(await crew.claim(4)) == ["0", "1", "2", "3"]
        assert await parked(crew) >= 12

        async def back() -> bool:
            return await parked(crew) == 12

        await until(back)
        assert names(await crew.claim(99)) == [str(n) for n in range(4, 12)]


async def test_resuming_wakes_a_claim_that_waits(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"})
    await suspend(crew)
    claim = asyncio.create_task(crew.claim(waitSeconds=20))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1

    await until(waits)
    await resume(crew)
    assert names(await asyncio.wait_for(claim, 5)) == ["a"]


async def test_the_end_of_a_suspension_makes_its_tasks_claimable(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"}, {"name": "b", "workgroup": "w"})
    await suspend(crew)

    async def aside() -> bool:
        return await parked(crew) == 2

    await until(aside)
    await end_suspensions(crew)
    assert names(await crew.claim(9, waitSeconds=20)) == ["a", "b"]
    assert (await workgroup(crew))["suspendedUntil"] is None


async def test_a_short_suspension_ends_by_itself(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"})
    await suspend(crew, seconds=0.3)
    assert await crew.claim() == []
    assert names(await crew.claim(waitSeconds=20)) == ["a"]


async def test_a_suspension_of_nothing_holds_nothing(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"})
    await suspend(crew, seconds=0)
    assert names(await crew.claim(waitSeconds=20)) == ["a"]


async def test_resuming_what_is_not_suspended_changes_nothing(crew: Crew) -> None:
    await crew.create({"name": "a", "workgroup": "w"})
    assert (await resume(crew))["suspendedUntil"] is None
    assert names(await crew.claim()) == ["a"]


async def test_the_notBefore_of_a_delayed_task_is_the_later_of_its_time_and_the_suspension(crew: Crew) -> None:
    made = await crew.create(
        {"name": "soon", "workgroup": "w", "delaySeconds": 10}, {"name": "late", "workgroup": "w", "delaySeconds": 1000}
    )
    soon, late = (t["id"] for t in made["tasks"])
    own = (await crew.task(late))["notBefore"]
    end = (await suspend(crew))["suspendedUntil"]
    assert (await crew.task(soon))["notBefore"] == end
    assert (await crew.task(late))["notBefore"] == own
    assert (await crew.task(soon, "state heldBy")) == {"state": "SCHEDULED", "heldBy": []}


async def test_counts_do_not_change_with_a_suspension(crew: Crew) -> None:
    await crew.create(
        *({"name": "a", "workgroup": "w"} for _ in range(3)), {"name": "b", "workgroup": "w", "delaySeconds": 9}
    )
    expected = [{"state": "SCHEDULED", "count": 1}, {"state": "READY", "count": 3}]
    assert (await workgroup(crew))["counts"] == expected
    assert (await suspend(crew))["counts"] == expected

    async def aside() -> bool:
        return await parked(crew) == 3

    await until(aside)
    assert (await workgroup(crew))["counts"] == expected
    assert (await resume(crew))["counts"] == expected


async def test_suspended_workgroups_can_be_listed(crew: Crew) -> None:
    await crew.create(*({"name": "a", "workgroup": w} for w in "bca"))
    await suspend(crew, "c")
    listed = await crew.ask("{ all: workgroups { name } some: workgroups(suspendedOnly: true) { name reason } }")
    assert listed == {"all": [{"name": n} for n in "abc"], "some": [{"name": "c", "reason": None}]}


async def test_a_workgroup_can_be_suspended_before_it_has_tasks(crew: Crew) -> None:
    assert await workgroup(crew, "new") is None
    assert (await suspend(crew, "new"))["counts"] == []
    await crew.create({"name": "a", "workgroup": "new"})
    assert await crew.claim() == []


async def test_suspending_writes_one_row_however_many_tasks_there_are(crew: Crew) -> None:
    await crew.create(*({"name": "a", "workgroup": "w"} for _ in range(500)))
    await suspend(crew)
    rows = await crew.sql(
        "select (select count(*) from hold)::int as holds, (select count(*) from event where kind = 16)::int as events"
    )
    assert tuple(rows[0]) == (1, 1)
