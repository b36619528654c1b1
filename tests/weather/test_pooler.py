"""DATABASE_URL through PgBouncer in transaction mode, with four connections behind it; DATABASE_DIRECT_URL past it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest_asyncio

from db.pool import SESSION
from tests.support.bouncer import bouncer_to
from tests.support.crew import Crew, crew_on
from tests.weather.test_hints import SLOW, acquainted, waiting

FOUND = (
    '{ tasks(filter: {nameContains: "t1", states: [SUCCEEDED]}, orderBy: FINISHED_DESC) { totalCount nodes { name } } }'
)
PAUSE = "mutation($id: ID!) { pauseTaskGroup(id: $id) { affected } }"
GO_ON = "mutation($id: ID!) { resumeTaskGroup(id: $id) { affected } }"


@pytest_asyncio.fixture
async def pooled(dsn: str) -> AsyncIterator[Crew]:
    with bouncer_to(dsn) as through:
        async with crew_on(through, database_direct_url=dsn) as crew:
            yield crew


async def test_many_workers_run_a_graph_with_keys_and_joins(pooled: Crew) -> None:
    tasks = [{"name": "root", "ref": "root"}]
    tasks += [
        {"name": f"t{n}", "key": f"k{n % 7}" if n % 3 else None, "parents": [{"ref": "root"}]} for n in range(100)
    ]
    tasks += [{"name": "join", "parents": [{"ref": "root", "waitFor": "SUBTREE"}]}]
    group = (await pooled.create(*tasks))["taskGroup"]["id"]
    assert (await pooled.ask(PAUSE, id=group))["pauseTaskGroup"]["affected"] == 1
    assert await pooled.claim() == []
    assert (await pooled.ask(GO_ON, id=group))["resumeTaskGroup"]["affected"] == 1

    async def work(name: str) -> None:
        while leases := await pooled.claim(3, workerId=name, waitSeconds=1):
            grows = [x for x in leases if x["task"]["name"] == "root"]
            await pooled.complete(*grows, children=[{"name": "leaf", "channel": "c"}])
            if rest := [x for x in leases if x not in grows]:
                await pooled.complete(*rest, output=1)

    await asyncio.gather(*(work(f"w{n}") for n in range(20)))
    states = await pooled.states(group)
    assert set(states.values()) == {"SUCCEEDED"}
    assert len(states) == 103
    found = (await pooled.ask(FOUND))["tasks"]
    assert found["totalCount"] == len(found["nodes"]) == 11


async def test_every_transaction_has_its_time_outs(pooled: Crew) -> None:
    async def shown(name: str) -> str:
        rows = await pooled.sql(f"select current_setting('{name}') as value")
        return rows[0]["value"]

    before = [{name: await shown(name) for name in SESSION if name != "application_name"} for _ in range(5)]
    assert before == [before[0]] * 5
    assert before[0]["statement_timeout"] == "30s"
    assert before[0]["lock_timeout"] == "10s"
    assert before[0]["idle_in_transaction_session_timeout"] == "15s"
    assert before[0]["plan_cache_mode"] == "force_generic_plan"


async def test_hints_pass_by_the_direct_connection(dsn: str) -> None:
    with bouncer_to(dsn) as through:
        async with (
            crew_on(through, database_direct_url=dsn, rhythm=SLOW) as one,
            crew_on(through, database_direct_url=dsn, rhythm=SLOW) as two,
        ):
            await acquainted(one)
            async with waiting(two) as claim:
                await one.create({"name": "x"})
            assert len(claim.result()) == 1
