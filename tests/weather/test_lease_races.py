"""Races of leases: they run out, are extended and split.

Forced: one transaction is stopped in the middle, the other is seen to wait for it (or not to).
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from db.create import create_tasks, lock_parents
from db.lease import complete_tasks, ended_items, extend_leases, fail_tasks, release_leases
from tests.support.crew import Crew
from tests.support.races import (
    CHANNEL,
    FORK,
    LONG,
    NS,
    OTHER_WORKER,
    Stage,
    batch_of,
    complete,
    completions,
    connected,
    everything,
    failures,
    group_of,
    hung_under,
    pairs,
    request,
    servers_wait_for_locks,
    sweep,
    two_servers,
)

# -- leases that run out ---------------------------------------------------------------------------------------------


async def test_expiry_passes_by_a_lease_that_is_being_completed(stage: Stage) -> None:
    no = await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await complete(stage.a, lease)).ords == [1]
        assert await sweep(stage.b, 60, 100) == 0
    assert await sweep(stage.b, 60, 100) == 0
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
        assert await sweep(stage.a, 60, 100) == 1
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
    await sweep(stage.a, 60, 100)
    task = await stage.waiting(extend_leases(stage.b, NS, pairs(lease), 60))
    await undone.rollback()
    assert (await task).ords == [1]
    assert await sweep(stage.a, 60, 100) == 0


async def test_a_sweep_passes_by_a_lease_that_is_being_extended(stage: Stage) -> None:
    await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert (await extend_leases(stage.a, NS, pairs(lease), 60)).ords == [1]
        assert await sweep(stage.b, 60, 100) == 0
    assert await sweep(stage.b, 60, 100) == 0
    assert (await complete(stage.b, lease)).ords == [1]


async def test_two_sweeps_at_once_expire_each_lease_once(stage: Stage) -> None:
    names = [f"t{n}" for n in range(40)]
    await stage.graph(dict.fromkeys(names, ()))
    for _ in names:
        await stage.claim(1)
    await stage.eye.execute("update lease set until = now() - interval '1 s'")
    async with stage.a.transaction():
        assert await sweep(stage.a, 60, 15) == 15
        assert await sweep(stage.b, 60, 100) == 25
    assert await sweep(stage.b, 60, 100) == 0
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
