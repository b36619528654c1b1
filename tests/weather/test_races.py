"""Races, forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from db.clock import (
    expire_leases,
    park_held,
    parked_free,
    promote_scheduled,
    resume_workgroup,
    suspend_workgroups,
    unpark,
)
from db.create import create_tasks, lock_parents
from db.lease import claim_tasks, complete_tasks, ended_items, extend_leases, fail_tasks, release_leases
from resolvers.draft import new_id
from tests.support.crew import CLAIM, Crew, crew_on
from tests.support.races import (
    CHANNEL,
    NS,
    OTHER_WORKER,
    START,
    WORKGROUP,
    Stage,
    batch_of,
    complete,
    completions,
    connected,
    everything,
    failures,
    hung_under,
    pairs,
    request,
    servers_wait_for_locks,
    stage_on,
    until,
)

FORK = {"x": (), "y": (), "child": ("x", "y")}
LONG = 5.0


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    async with stage_on(dsn) as stage:
        yield stage


@contextlib.asynccontextmanager
async def two_servers(dsn: str) -> AsyncIterator[tuple[Crew, Crew, asyncpg.Connection, asyncpg.Connection]]:
    """Two servers, a connection to stop them with, and an eye."""
    async with crew_on(dsn) as one, crew_on(dsn) as two, connected(dsn, 2) as (a, eye):
        yield one, two, a, eye


# -- parents that end at once ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "second"), [("x", "y"), ("y", "x")])
async def test_two_last_parents_that_complete_at_once_free_the_child_once(
    stage: Stage, first: str, second: str
) -> None:
    no = await stage.graph(FORK)
    rows = await stage.claim_all(no["x"], no["y"]) if first == "x" else None
    lease = rows or {r.no: r for _ in "xy" for r in await stage.claim(1)}
    async with stage.a.transaction():
        freed = await complete(stage.a, lease[no[first]])
        assert freed.nos is None
        task = await stage.waiting(complete(stage.b, lease[no[second]]))
    found = await task
    if rows is None:
        assert found.nos == [no["child"]]
    else:
        # One lease holds both: the second waits for the lease row, and reads the newest one.
        assert (found.ords, found.nos) == ([1], [no["child"]])
    assert await stage.place(no["child"]) == "READY"
    assert [r.no for r in await stage.claim(10)] == [no["child"]]
    assert await stage.claim(10) == []
    assert await stage.count("event", f"state = 2 and was = 0 and {no['child']} = any (nos)") == 1


async def test_the_second_of_two_last_parents_frees_the_child_when_the_first_is_undone(stage: Stage) -> None:
    no = await stage.graph(FORK)
    lease = {r.no: r for _ in "xy" for r in await stage.claim(1)}
    undone = stage.a.transaction()
    await undone.start()
    await complete(stage.a, lease[no["x"]])
    task = await stage.waiting(complete(stage.b, lease[no["y"]]))
    await undone.rollback()
    assert (await task).nos is None
    assert await stage.place(no["child"]) == "BLOCKED"
    assert (await complete(stage.b, lease[no["x"]])).nos == [no["child"]]
    assert await stage.place(no["child"]) == "READY"


async def test_five_parents_that_complete_at_once_free_the_child_once(stage: Stage, dsn: str) -> None:
    parents = [f"p{n}" for n in range(5)]
    no = await stage.graph({**dict.fromkeys(parents, ()), "child": parents})
    lease = {r.no: r for _ in parents for r in await stage.claim(1)}
    async with connected(dsn, 5) as many:
        async with stage.a.transaction():
            await stage.a.execute("select from blocked for update")
            tasks = [await stage.waiting(complete(c, lease[no[p]]), c) for c, p in zip(many, parents, strict=True)]
        found = [await t for t in tasks]
    assert [f.nos for f in found if f.nos] == [[no["child"]]]
    assert [r.no for r in await stage.claim(10)] == [no["child"]]


# -- the same call twice ---------------------------------------------------------------------------------------------


async def test_the_same_complete_twice_at_once_ends_the_task_once(stage: Stage) -> None:
    no = await stage.graph({"x": (), "child": ("x",)})
    (lease,) = await stage.claim(10)
    async with stage.a.transaction():
        assert (await complete(stage.a, lease)).ords == [1]
        task = await stage.waiting(complete(stage.b, lease))
    again = await task
    assert (again.ords, again.again, again.nos) == (None, 0, None)
    (item,) = await ended_items(stage.c, NS, pairs(lease))
    assert (item.completed, item.failed, item.cancelled) == (True, False, False)
    assert await stage.count("done") == 1
    assert await stage.count("event", f"state = 2 and was = 0 and {no['child']} = any (nos)") == 1


async def test_the_same_complete_on_two_servers_at_once_is_answered_as_completed_by_both(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create({"name": "x", "ref": "x"}, {"name": "child", "parents": [{"ref": "x"}]})
        (lease,) = await one.claim(10)
        async with a.transaction():
            await a.execute("select from lease for update")
            calls = [asyncio.create_task(s.complete(lease, output=7)) for s in (one, two)]
            await servers_wait_for_locks(eye, 2)
        for answer in await asyncio.gather(*calls):
            assert (answer["completed"], answer["errors"]) == (1, [])
        assert await eye.fetchval("select count(*) from done") == 1
        assert await eye.fetchval("select count(*) from ready") == 1


async def test_children_are_made_once_when_the_same_complete_comes_to_two_servers_at_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x"})
        (lease,) = await one.claim(10)
        child = {"name": "more", "channel": "c"}
        async with a.transaction():
            await a.execute("select from lease for update")
            calls = [asyncio.create_task(s.complete(lease, children=[child])) for s in (one, two)]
            await servers_wait_for_locks(eye, 2)
        for answer in await asyncio.gather(*calls):
            assert (answer["completed"], answer["errors"]) == (1, [])
        assert await one.states(made["taskGroup"]["id"]) == {"x": "SUCCEEDED", "more": "READY"}


async def test_the_same_fail_on_two_servers_at_once_counts_once(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        made = await one.create({"name": "x"})
        (lease,) = await one.claim()
        async with a.transaction():
            await a.execute("select from lease for update")
            calls = [asyncio.create_task(s.fail(lease, error="no")) for s in (one, two)]
            await servers_wait_for_locks(eye, 2)
        for answer in await asyncio.gather(*calls):
            assert (answer["failed"], answer["errors"]) == (1, [])
        task = await one.task(made["tasks"][0]["id"])
        assert (task["state"], task["attempt"], task["remainingAttempts"]) == ("SCHEDULED", 1, 4)
        assert await eye.fetchval("select count(*) from error") == 1


# -- leases that run out ---------------------------------------------------------------------------------------------


async def test_expiry_passes_by_a_lease_that_is_being_completed(stage: Stage) -> None:
    no = await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await complete(stage.a, lease)).ords == [1]
        assert (await expire_leases(stage.b, NS, 60, 100)).count == 0
    assert (await expire_leases(stage.b, NS, 60, 100)).count == 0
    assert await stage.place(no["x"]) == "SUCCEEDED"
    assert await stage.count("error") == 0


@pytest.mark.parametrize("verb", ["complete", "fail", "extend", "release"])
async def test_a_call_that_waits_for_the_expiry_of_its_lease_changes_nothing(stage: Stage, verb: str) -> None:
    no = await stage.graph({"x": (), "child": ("x",)})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    calls: dict[str, Any] = {
        "complete": lambda: complete_tasks(stage.b, NS, completions(lease)),
        "fail": lambda: fail_tasks(stage.b, NS, failures(lease)),
        "extend": lambda: extend_leases(stage.b, NS, pairs(lease), 60),
        "release": lambda: release_leases(stage.b, NS, pairs(lease)),
    }
    async with stage.a.transaction():
        assert (await expire_leases(stage.a, NS, 60, 100)).count == 1
        task = await stage.waiting(calls[verb]())
    before = await stage.everything()
    found = await task
    assert found == [] if isinstance(found, list) else found.ords is None
    assert await stage.everything() == before
    (item,) = await ended_items(stage.c, NS, pairs(lease))
    assert (item.completed, item.failed, item.cancelled) == (False, False, False)
    assert await stage.place(no["x"]) == "READY"
    assert await stage.place(no["child"]) == "BLOCKED"
    (taken,) = await stage.claim(10)
    assert (taken.no, taken.attempt, taken.remaining) == (no["x"], 2, 3)


async def test_an_extension_that_waits_for_a_sweep_that_is_undone_holds(stage: Stage) -> None:
    await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    undone = stage.a.transaction()
    await undone.start()
    await expire_leases(stage.a, NS, 60, 100)
    task = await stage.waiting(extend_leases(stage.b, NS, pairs(lease), 60))
    await undone.rollback()
    assert (await task).ords == [1]
    assert (await expire_leases(stage.a, NS, 60, 100)).count == 0


async def test_a_sweep_passes_by_a_lease_that_is_being_extended(stage: Stage) -> None:
    await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await extend_leases(stage.a, NS, pairs(lease), 60)).ords == [1]
        assert (await expire_leases(stage.b, NS, 60, 100)).count == 0
    assert (await expire_leases(stage.b, NS, 60, 100)).count == 0
    assert (await complete(stage.b, lease)).ords == [1]


async def test_two_sweeps_at_once_expire_each_lease_once(stage: Stage) -> None:
    names = [f"t{n}" for n in range(40)]
    await stage.graph(dict.fromkeys(names, ()))
    for _ in names:
        await stage.claim(1)
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await expire_leases(stage.a, NS, 60, 15)).count == 15
        assert (await expire_leases(stage.b, NS, 60, 100)).count == 25
    assert (await expire_leases(stage.b, NS, 60, 100)).count == 0
    assert (await stage.count("ready"), await stage.count("error")) == (40, 40)
    assert await stage.eye.fetchval("select sum(attempt) from ready") == 40


@pytest.mark.parametrize("verb", ["complete", "fail", "extend", "release"])
async def test_a_stale_lease_is_lost_and_changes_nothing(crew: Crew, verb: str) -> None:
    await crew.create({"name": "x", "ref": "x"}, {"name": "child", "parents": [{"ref": "x"}]})
    (stale,) = await crew.claim()
    await crew.sql("update lease set until = now() - interval '1 s'")
    (fresh,) = await crew.claim(workerId="v", waitSeconds=LONG)
    assert fresh["task"]["id"] == stale["task"]["id"]
    assert (stale["attempt"], fresh["attempt"]) == (1, 2)
    async with connected(crew.dsn, 1) as (eye,):
        before = await everything(eye)
        answer = await getattr(crew, verb)(stale)
        assert [e["code"] for e in answer["errors"]] == ["LOST"]
        assert await everything(eye) == before
    answer = await crew.complete(fresh)
    assert (answer["completed"], answer["errors"]) == (1, [])


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
        assert await park_held(stage.a, NS, 100) == 2
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
        assert await park_held(stage.a, NS, 100) == 2
        await stage.eye.execute("delete from hold")
        async with crew_on(dsn) as crew:
            leases = await crew.claim(10, waitSeconds=LONG)
            assert len(leases) == len(no)


async def test_parking_passes_by_what_a_claim_takes_and_a_claim_by_what_is_parked(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()}, workgroup=WORKGROUP)
    async with stage.a.transaction():
        (taken,) = await stage.claim(1, stage.a)
        await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
        assert await park_held(stage.b, NS, 100) == 1
    await resume_workgroup(stage.c, NS, WORKGROUP)
    async with stage.a.transaction():
        assert (await unpark(stage.a, NS, WORKGROUP, 100)).count == 1
        assert await stage.claim(10) == []
        assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 0
    assert [r.no for r in await stage.claim(10)] == [n for n in no.values() if n != taken.no]


async def test_two_servers_that_unpark_at_once_move_each_task_once(stage: Stage) -> None:
    await stage.graph({f"t{n}": () for n in range(30)}, workgroup=WORKGROUP)
    await suspend_workgroups(stage.c, NS, [(WORKGROUP, 60, None)])
    assert await park_held(stage.c, NS, 100) == 30
    await resume_workgroup(stage.c, NS, WORKGROUP)
    async with stage.a.transaction():
        assert (await unpark(stage.a, NS, WORKGROUP, 10)).count == 10
        assert (await unpark(stage.b, NS, WORKGROUP, 100)).count == 20
    assert (await stage.count("ready"), await stage.count("parked")) == (30, 0)


# -- the order of locks ----------------------------------------------------------------------------------------------


async def test_completions_with_crossing_children_lock_them_in_one_order(stage: Stage, dsn: str) -> None:
    """Each names the parents in another order; both are stopped at the first child, and neither holds the second."""
    no = await stage.graph({"x1": (), "y1": (), "x2": (), "y2": (), "x": ("x1", "x2"), "y": ("y1", "y2")})
    lease = {r.no: r for _ in range(4) for r in await stage.claim(1)}
    async with stage.c.transaction():
        await stage.c.execute("select from blocked where no = $1 for update", no["x"])
        one = await stage.waiting(complete(stage.a, lease[no["x1"]], lease[no["y1"]]), stage.a)
        two = await stage.waiting(complete(stage.b, lease[no["y2"]], lease[no["x2"]]))
        async with stage.eye.transaction():
            await stage.eye.execute("select from blocked where no = $1 for update nowait", no["y"])
    found = [await one, await two]
    assert sorted(n for f in found for n in f.nos or ()) == sorted([no["x"], no["y"]])


async def test_completions_with_crossing_leases_lock_them_in_one_order(stage: Stage) -> None:
    await stage.graph({f"t{n}": () for n in range(4)})
    first, second = await stage.claim(2), await stage.claim(2)
    async with stage.c.transaction():
        await stage.c.execute("select from lease where lease_no = $1 for update", first[0].lease_no)
        one = await stage.waiting(complete(stage.a, first[0], second[0]), stage.a)
        two = await stage.waiting(complete(stage.b, second[1], first[1]))
        async with stage.eye.transaction():
            await stage.eye.execute("select from lease where lease_no = $1 for update nowait", second[0].lease_no)
    assert [(await t).ords for t in (one, two)] == [[1, 2], [1, 2]]
    assert await stage.count("lease") == 0


async def test_a_storm_of_crossing_completions_meets_no_deadlock(stage: Stage, dsn: str) -> None:
    """Four connections end the parents of the same children under the same leases, each in its own order, 200 times."""
    rounds, width = 200, 4
    names = [f"{r}.{n}.{w}" for r in range(rounds) for n in range(6) for w in range(width)]
    children = {f"{r}.child{n}": [f"{r}.{n}.{w}" for w in range(width)] for r in range(rounds) for n in range(6)}
    no = await stage.graph({**dict.fromkeys(names, ()), **children})
    lease = {}
    for _ in range(rounds):
        lease |= {r.no: r for r in await claim_tasks(stage.c, NS, [START], [request(4) for _ in range(6)])}
    assert len(lease) == len(names)
    async with connected(dsn, width) as many:
        for r in range(rounds):
            orders = [range(6), range(5, -1, -1), (2, 0, 5, 1, 4, 3), (3, 5, 0, 4, 2, 1)]
            calls = [
                complete(c, *[lease[no[f"{r}.{n}.{w}"]] for n in order])
                for w, (c, order) in enumerate(zip(many, orders, strict=True))
            ]
            found = await asyncio.gather(*calls)
            assert [f.ords for f in found] == [[1, 2, 3, 4, 5, 6]] * width
            assert sorted(n for f in found for n in f.nos or ()) == sorted(no[f"{r}.child{n}"] for n in range(6))
    assert (await stage.count("lease"), await stage.count("blocked")) == (0, 0)
    assert await stage.count("ready") == len(children)


async def test_a_task_hung_under_a_task_and_its_child_does_not_deadlock_with_the_completion(stage: Stage) -> None:
    """Leases before blocked rows, as lease.sql says: the completion holds the lease when it wants the child."""
    no = await stage.graph({"p": (), "child": ("p",)})
    (lease,) = await stage.claim(1)
    ids = [r["id"] for r in await stage.eye.fetch("select id from task order by no")]
    async with stage.c.transaction():
        await stage.c.execute("select from lease for update")
        # The completion stands first in the queue for the lease, and goes on to the child when it has it.
        completing = await stage.waiting(complete(stage.a, lease), stage.a)
        hanging = await stage.waiting(lock_parents(stage.b, NS, ids))
    outcomes = await asyncio.gather(completing, hanging, return_exceptions=True)
    assert [o for o in outcomes if isinstance(o, BaseException)] == []
    assert await stage.place(no["child"]) == "READY"


# -- children hung under tasks that end ------------------------------------------------------------------------------


async def group_of(stage: Stage, no: int) -> tuple[UUID, int]:
    row = await stage.eye.fetchrow("select id, group_no from task where no = $1", no)
    return row["id"], row["group_no"]


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
    assert [r.place for r in await lock_parents(stage.b, NS, [parent])] == ["done"]
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


# -- claims ----------------------------------------------------------------------------------------------------------


async def test_two_claims_at_once_never_take_one_task_twice(stage: Stage) -> None:
    no = await stage.graph({f"t{n}": () for n in range(10)})
    async with stage.a.transaction():
        first = await stage.claim(4, stage.a)
        second = await stage.claim(10, stage.b)
    assert (len(first), len(second)) == (4, 6)
    assert {r.no for r in first} | {r.no for r in second} == set(no.values())


async def test_a_repeated_claim_takes_nothing_more(stage: Stage) -> None:
    """Nothing is wanted: no row may leave the ready ones, and none may leave them without a lease."""
    claim_id = new_id()
    no = await stage.graph({"x": (), "y": (), "z": ()})
    (first,) = await stage.claim(1, claim_id=claim_id)
    assert await stage.claim(1, claim_id=claim_id) == []
    assert sorted(r["no"] for r in await stage.eye.fetch("select no from ready")) == sorted({*no.values()} - {first.no})
    assert await stage.claim(0) == []
    assert await stage.count("ready") == 2


@pytest.mark.parametrize("worker", ["known", "new"])
async def test_two_copies_of_a_claim_that_wait_in_one_server_get_the_same_leases(crew: Crew, worker: str) -> None:
    claim_id = str(new_id())
    if worker == "known":
        await crew.claim(1)
    copies = [asyncio.create_task(crew.claim(2, claimId=claim_id, waitSeconds=LONG)) for _ in range(2)]
    await until(lambda: waiting_with(crew, askers=2), "both copies wait as one")
    await crew.create({"name": "x"}, {"name": "y"}, {"name": "z"})
    first, second = await asyncio.gather(*copies)
    assert first == second
    assert len(first) == 2
    assert await crew.sql("select from claim") != []
    assert len(await crew.sql("select from ready")) == 1
    again = await crew.claim(2, claimId=claim_id)
    assert [lease["id"] for lease in again] == [lease["id"] for lease in first]
    assert len(await crew.sql("select from ready")) == 1


async def test_two_copies_of_a_claim_that_come_at_once_with_a_new_worker_get_the_same_leases(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    claim_id = str(new_id())
    copies = [crew.claim(1, claimId=claim_id, waitSeconds=LONG) for _ in range(2)]
    first, second = await asyncio.wait_for(asyncio.gather(*copies), 10)
    assert len(first) == 1
    assert [lease["id"] for lease in first] == [lease["id"] for lease in second]
    assert len(await crew.sql("select from ready")) == 1


async def test_a_copy_of_a_claim_is_answered_when_its_wait_is_over_though_the_first_asker_has_gone(crew: Crew) -> None:
    claim_id = str(new_id())
    await crew.claim(1)
    client = Client(crew, claimId=claim_id, waitSeconds=1)
    await until(lambda: waiting_with(crew, askers=1), "the first copy waits")
    copy = asyncio.create_task(crew.claim(1, claimId=claim_id, waitSeconds=1))
    await until(lambda: waiting_with(crew, askers=2), "both copies wait as one")
    await client.hang_up()
    assert await asyncio.wait_for(copy, 5) == []


async def waiting_with(crew: Crew, *, askers: int) -> bool:
    return [w.askers for ws in crew.services.dispatcher._waiting.values() for w in ws] == [askers]


async def test_two_copies_of_a_claim_on_two_servers_at_once_get_the_same_leases(dsn: str) -> None:
    """Both statements are stopped at the claim id; the one that comes second meets a unique violation."""
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create({"name": "x"}, {"name": "y"}, {"name": "z"})
        await two.claim(1, channels=("nothing here",))
        claim_id = str(new_id())
        holds = a.transaction()
        await holds.start()
        await a.execute("insert into claim (ns, claim_id, lease_no, asked) values (1, $1, 0, '')", claim_id)
        copies = [asyncio.create_task(s.claim(1, claimId=claim_id, waitSeconds=LONG)) for s in (one, two)]
        await servers_wait_for_locks(eye, 2)
        await holds.rollback()
        first, second = await asyncio.gather(*copies)
        assert len(first) == 1
        assert [lease["id"] for lease in first] == [lease["id"] for lease in second]
        assert (await eye.fetchval("select count(*) from lease"), await eye.fetchval("select count(*) from ready")) == (
            1,
            2,
        )


@pytest.mark.parametrize("more", [0, 1])
async def test_a_copy_of_a_claim_that_waits_at_another_server_is_answered_the_same_leases(dsn: str, more: int) -> None:
    """A worker whose connection broke asks again, at another server, while both copies wait; `more` tasks stay ready."""
    async with two_servers(dsn) as (one, two, _, eye):
        claim_id = str(new_id())
        await one.create({"name": "seen"})
        await one.complete(*await one.claim(1))
        first = asyncio.create_task(one.claim(1, claimId=claim_id, waitSeconds=LONG))
        second = asyncio.create_task(two.claim(1, claimId=claim_id, waitSeconds=2))
        for server in (one, two):
            await until(lambda server=server: all_tried(server), "both copies have looked and wait")
        await one.create({"name": "x"}, *[{"name": "y"}] * more)
        leases, again = await asyncio.gather(first, second)
        if not leases:
            leases, again = again, leases
        assert len(leases) == 1
        assert [lease["id"] for lease in again] == [lease["id"] for lease in leases]
        assert await eye.fetchval("select count(*) from ready") == more


async def all_tried(crew: Crew) -> bool:
    """A claim waits, and no round is in hand: those in a round are not counted as waiting."""
    return crew.services.dispatcher.waiting == 1 and crew.services.dispatcher._running is None


async def test_a_unique_violation_of_one_claim_id_does_not_cost_the_others_of_the_round(dsn: str) -> None:
    async with two_servers(dsn) as (one, two, a, eye):
        await one.create(*[{"name": f"t{n}"} for n in range(4)])
        claim_id = str(new_id())
        holds = a.transaction()
        await holds.start()
        await a.execute("insert into claim (ns, claim_id, lease_no, asked) values (1, $1, 0, '')", claim_id)
        copies = [asyncio.create_task(one.claim(1, claimId=claim_id, waitSeconds=LONG))]
        await servers_wait_for_locks(eye, 1)
        copies += [asyncio.create_task(two.claim(1, claimId=claim_id, waitSeconds=LONG))]
        copies += [asyncio.create_task(two.claim(1, workerId=f"w{n}", waitSeconds=LONG)) for n in range(2)]
        await servers_wait_for_locks(eye, 2)
        await holds.rollback()
        leases = await asyncio.gather(*copies)
        assert [len(x) for x in leases] == [1, 1, 1, 1]
        assert leases[0][0]["id"] == leases[1][0]["id"]
        assert len({x[0]["id"] for x in leases}) == 3
        assert await eye.fetchval("select count(*) from ready") == 1


class Client:
    """A client of the HTTP view that can hang up."""

    def __init__(self, crew: Crew, **claim: Any) -> None:
        given = {"workerId": "w", "channels": ["c"], "limit": 1, "waitSeconds": LONG, **claim}
        self._body = json.dumps({"query": CLAIM, "variables": {"input": given}}).encode()
        self._sent = False
        self._gone = asyncio.Event()
        transport: Any = crew.http._transport
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/graphql", "raw_path": b"/graphql", "query_string": b"", "root_path": "",
            "headers": [(b"host", b"crew"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1), "server": ("crew", 80),
        }  # fmt: skip
        self._request = asyncio.create_task(transport.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if not self._sent:
            self._sent = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        assert self._gone.is_set(), message

    async def hang_up(self) -> None:
        """The server has noticed when this returns."""
        self._gone.set()
        await self._request


async def test_a_client_that_goes_away_while_it_waits_is_dropped_and_takes_nothing(crew: Crew) -> None:
    await crew.create({"name": "first"})
    await crew.complete(*await crew.claim(1))
    client = Client(crew)
    await until(lambda: all_tried(crew), "the claim waits")
    await client.hang_up()
    assert crew.services.dispatcher.waiting == 0
    await crew.create({"name": "x"})
    assert await crew.sql("select from lease") == []
    (lease,) = await crew.claim(1)
    assert lease["attempt"] == 1


async def test_a_client_that_goes_away_in_a_round_gives_its_leases_back_uncounted(crew: Crew) -> None:
    made = await crew.create({"name": "x"})
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table claim, lease in share mode")
            client = Client(crew)
            await servers_wait_for_locks(eye)
            await client.hang_up()
        await until(lambda: eye.fetchval("select count(*) > 0 from event where kind = 12"), "it was released")
        (row,) = await eye.fetch("select attempt, remaining, failures from ready")
        assert tuple(row) == (0, 5, 0)
        assert await eye.fetchval("select count(*) from lease") == 0
    assert (await crew.task(made["tasks"][0]["id"]))["state"] == "READY"
    (lease,) = await crew.claim(1)
    assert lease["attempt"] == 1


async def test_a_round_in_which_one_client_goes_away_serves_the_others(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    await crew.claim(1, channels=("other",))
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table lease in share mode")
            client = Client(crew)
            other = asyncio.create_task(crew.claim(1, waitSeconds=LONG))
            await servers_wait_for_locks(eye)
            await client.hang_up()
        assert len(await other) == 1
        await until(lambda: eye.fetchval("select count(*) = 1 from event where kind = 12"), "one was released")
        assert await eye.fetchval("select sum(attempt) from ready") == 0
        assert await eye.fetchval("select count(*) from lease") == 1


async def test_a_claim_with_an_id_whose_client_goes_away_in_a_round_can_be_asked_for_again(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    claim_id = str(new_id())
    async with connected(crew.dsn, 2) as (a, eye):
        async with a.transaction():
            await a.execute("lock table claim, lease in share mode")
            client = Client(crew, claimId=claim_id)
            await servers_wait_for_locks(eye)
            await client.hang_up()
        await until(lambda: eye.fetchval("select count(*) = 1 from lease"), "the round ended")
        (lease,) = await crew.claim(1, waitSeconds=LONG, claimId=claim_id)
        assert lease["attempt"] == 1
        assert await eye.fetchval("select count(*) from ready") == 1


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


# -- extensions ------------------------------------------------------------------------------------------------------


async def test_an_extension_that_waits_for_the_completion_of_its_lease_brings_nothing_back(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()})
    lease = await stage.claim_all(*no.values())
    async with stage.a.transaction():
        await complete(stage.a, *lease.values())
        task = await stage.waiting(extend_leases(stage.b, NS, pairs(*lease.values()), 600))
    assert (await task).ords is None
    assert await stage.count("lease") == 0


async def test_an_extension_that_waits_for_a_completion_of_half_its_lease_keeps_the_other_half(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()})
    lease = await stage.claim_all(*no.values())
    x, y = lease[no["x"]], lease[no["y"]]
    async with stage.a.transaction():
        await complete(stage.a, x)
        task = await stage.waiting(extend_leases(stage.b, NS, pairs(x, y), 600))
    assert (await task).ords == [2]
    (row,) = await stage.eye.fetch("select nos, until > now() + interval '500 s' as long from lease")
    assert (row["nos"], row["long"]) == ([no["y"]], True)


async def test_a_completion_that_waits_for_an_extension_of_the_whole_lease_counts(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()})
    lease = await stage.claim_all(*no.values())
    async with stage.a.transaction():
        await extend_leases(stage.a, NS, pairs(*lease.values()), 600)
        task = await stage.waiting(complete(stage.b, *lease.values()))
    assert (await task).ords == [1, 2]
    assert await stage.count("lease") == 0


@pytest.mark.parametrize("verb", ["complete", "fail", "extend", "release"])
@pytest.mark.parametrize("which", ["extended", "left"])
async def test_a_server_finds_a_task_whose_lease_is_split_by_an_extension_meanwhile(
    dsn: str, verb: str, which: str
) -> None:
    """The split puts the named tasks into a row that a statement which waits for the old one cannot see."""
    async with two_servers(dsn) as (one, _, a, eye):
        await one.create({"name": "x"}, {"name": "y"})
        x, y = await one.claim(2)
        pair = one.services.core.lease_ids.read(x["id"])
        assert pair is not None
        async with a.transaction():
            assert (await extend_leases(a, NS, [pair], 600)).ords == [1]
            call = asyncio.create_task(getattr(one, verb)(x if which == "extended" else y))
            await servers_wait_for_locks(eye, 1)
        assert (await call)["errors"] == []


@pytest.mark.parametrize("verb", ["complete", "fail", "extend", "release"])
async def test_after_an_extension_of_half_a_lease_both_halves_answer_to_their_ids(crew: Crew, verb: str) -> None:
    await crew.create(*[{"name": f"t{n}"} for n in range(4)])
    leases = await crew.claim(4)
    answer = await crew.extend(leases[0], leases[2], leaseSeconds=600)
    assert answer["errors"] == []
    rows = await crew.sql(
        "select part, cardinality(nos) as n, until > now() + interval '500 s' as long from lease order by part"
    )
    assert [(r["n"], r["long"]) for r in rows] == [(2, False), (2, True)]
    assert len({r["part"] for r in rows}) == 2
    answer = await getattr(crew, verb)(*leases)
    assert answer["errors"] == []
    left = [r["n"] for r in await crew.sql("select cardinality(nos) as n from lease order by part")]
    assert left == ([2, 2] if verb == "extend" else [])


async def test_the_half_of_a_lease_that_is_not_extended_runs_out_alone(crew: Crew) -> None:
    await crew.create({"name": "x"}, {"name": "y"})
    x, y = await crew.claim(2)
    await crew.extend(x, leaseSeconds=600)
    await crew.sql("update lease set until = now() - interval '1 s' where part = 0")
    (again,) = await crew.claim(2, waitSeconds=LONG)
    assert again["task"]["id"] == y["task"]["id"]
    assert (await crew.complete(x))["completed"] == 1
    assert [e["code"] for e in (await crew.complete(y))["errors"]] == ["LOST"]
    assert (await crew.complete(again))["completed"] == 1


async def test_a_child_hung_under_the_moved_half_of_a_split_lease_is_seen_by_its_completion(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()})
    lease = await stage.claim_all(*no.values())
    parent, group = await group_of(stage, no["x"])
    await extend_leases(stage.c, NS, pairs(lease[no["x"]]), 600)
    async with stage.a.transaction():
        assert [r.place for r in await lock_parents(stage.a, NS, [parent])] == ["open"]
        (child,) = await create_tasks(stage.a, NS, hung_under("child", group, no["x"]))
        task = await stage.waiting(complete(stage.b, lease[no["x"]]))
    assert (await task).again == 1
    assert (await complete(stage.b, lease[no["x"]])).nos == [child.no]


async def test_a_claim_by_another_worker_gets_a_lease_number_of_its_own(stage: Stage) -> None:
    no = await stage.graph({"x": ()})
    (first,) = await stage.claim()
    await release_leases(stage.c, NS, pairs(first))
    (second,) = await stage.claim(worker=OTHER_WORKER)
    assert (first.no, first.attempt) == (second.no, second.attempt) == (no["x"], 1)
    assert first.lease_no != second.lease_no
    assert (await complete(stage.c, first)).ords is None
    assert (await complete(stage.c, second)).ords == [1]


async def test_helpers_agree_with_the_statements(stage: Stage) -> None:
    """The stage makes what the API makes: one group, and places by links and delays."""
    batch = batch_of(FORK)
    assert (len(batch.groups), len(batch.tasks), len(batch.links)) == (1, 3, 2)
    no = await stage.graph(FORK)
    assert [await stage.place(n) for n in no.values()] == ["READY", "READY", "BLOCKED"]
    assert request(3).asked == "3 of ('c',)"
    assert [r.channel_no for r in await stage.claim(1)] == [CHANNEL]
