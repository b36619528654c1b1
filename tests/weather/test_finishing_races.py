"""Races of completions: parents that end at once, the same call twice, the order of locks.

Forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to).
"""

from __future__ import annotations

import asyncio

import pytest

from db.claim import claim_tasks
from db.create import lock_parents
from db.lease import ended_items
from tests.support.races import (
    FORK,
    NS,
    START,
    Stage,
    complete,
    connected,
    pairs,
    request,
    servers_wait_for_locks,
    two_servers,
)

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
        lease |= {r.no: r for r in (await claim_tasks(stage.c, NS, [START], [request(4) for _ in range(6)]))[0]}
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
