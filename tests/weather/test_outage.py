"""Outages: time in which no server could take an extend does not run against leases (DESIGN.md §3.4). The clock is moved."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from db.clock import beat
from db.lease import extend_leases
from resolvers.core import Rhythm
from tests.support.crew import Crew, crew_on
from tests.support.races import NS, Stage, complete, stage_on, sweep, until

SILENCE, GRACE = 5.0, 15.0


@pytest.fixture
async def stage(dsn: str) -> AsyncIterator[Stage]:
    async with stage_on(dsn) as stage:
        yield stage


async def outage(stage: Stage, *, silent: float, ended: float) -> None:
    """No server beat for so long, and all leases ended so long ago (negative: they end in so long)."""
    await stage.eye.execute("update namespace set alive_at = now() - $1::float8 * interval '1 s'", silent)
    await stage.eye.execute("update lease set until = now() - $1::float8 * interval '1 s'", ended)


async def left(stage: Stage) -> list[float]:
    """Seconds until each lease ends."""
    rows = await stage.eye.fetch(
        "select extract(epoch from until - now())::float8 as s from lease order by lease_no, part"
    )
    return [r["s"] for r in rows]


async def test_a_lease_that_stood_when_the_gap_began_is_prolonged_by_the_gap_and_the_grace(stage: Stage) -> None:
    await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await outage(stage, silent=60, ended=30)
    found = await beat(stage.c, NS, SILENCE, GRACE)
    assert found.prolonged == 1
    assert found.silence == pytest.approx(60, abs=2)
    assert await left(stage) == [pytest.approx(-30 + 60 + 15, abs=2)]
    assert await sweep(stage.c, SILENCE, 100) == 0
    assert (await complete(stage.c, lease)).ords == [1]


async def test_a_lease_that_has_not_ended_is_prolonged_too(stage: Stage) -> None:
    """Its worker could not extend it either."""
    await stage.graph({"x": ()})
    await stage.claim()
    await outage(stage, silent=60, ended=-10)
    assert (await beat(stage.c, NS, SILENCE, GRACE)).prolonged == 1
    assert await left(stage) == [pytest.approx(10 + 60 + 15, abs=2)]


async def test_a_lease_that_had_ended_before_the_gap_began_is_not_prolonged(stage: Stage) -> None:
    no = await stage.graph({"x": ()})
    await stage.claim()
    await outage(stage, silent=60, ended=90)
    assert (await beat(stage.c, NS, SILENCE, GRACE)).prolonged == 0
    assert await left(stage) == [pytest.approx(-90, abs=2)]
    assert await sweep(stage.c, SILENCE, 100) == 1
    assert await stage.place(no["x"]) == "READY"


async def test_no_lease_runs_out_while_the_heartbeat_is_silent(stage: Stage) -> None:
    await stage.graph({"x": ()})
    await stage.claim()
    await outage(stage, silent=60, ended=90)
    before = await stage.everything()
    assert await sweep(stage.c, SILENCE, 100) == 0
    assert await stage.everything() == before


async def test_a_beat_in_time_prolongs_nothing(stage: Stage) -> None:
    await stage.graph({"x": ()})
    await stage.claim(seconds=60)
    await stage.eye.execute("update namespace set alive_at = now() - interval '4 s'")
    found = await beat(stage.c, NS, SILENCE, GRACE)
    assert found.prolonged == 0
    assert await left(stage) == [pytest.approx(60, abs=2)]
    assert (await beat(stage.c, NS, SILENCE, GRACE)).silence == pytest.approx(0, abs=1)


async def test_each_part_of_a_split_lease_is_prolonged(stage: Stage) -> None:
    no = await stage.graph({"x": (), "y": ()})
    rows = await stage.claim_all(*no.values())
    row = rows[no["x"]]
    await extend_leases(stage.c, NS, [(row.lease_no, row.no)], 10)
    await outage(stage, silent=60, ended=30)
    assert (await beat(stage.c, NS, SILENCE, GRACE)).prolonged == 2
    assert await left(stage) == [pytest.approx(45, abs=2)] * 2


async def test_two_servers_that_beat_at_once_after_a_gap_prolong_once(stage: Stage) -> None:
    await stage.graph({"x": ()})
    await stage.claim()
    await outage(stage, silent=60, ended=30)
    async with stage.a.transaction():
        assert (await beat(stage.a, NS, SILENCE, GRACE)).prolonged == 1
        task = await stage.waiting(beat(stage.b, NS, SILENCE, GRACE))
    found = await task
    assert found.prolonged == 0
    assert found.silence < SILENCE
    assert await left(stage) == [pytest.approx(45, abs=2)]


async def test_a_sweep_in_the_middle_of_the_beat_that_ends_a_gap_takes_nothing(stage: Stage) -> None:
    await stage.graph({"x": ()})
    await stage.claim()
    await outage(stage, silent=60, ended=30)
    async with stage.a.transaction():
        await beat(stage.a, NS, SILENCE, GRACE)
        assert await sweep(stage.b, SILENCE, 100) == 0
    assert await sweep(stage.b, SILENCE, 100) == 0


async def test_a_completion_is_not_held_up_by_the_beat_for_longer_than_the_beat(stage: Stage) -> None:
    no = await stage.graph({"x": ()})
    (lease,) = await stage.claim()
    await outage(stage, silent=60, ended=30)
    async with stage.a.transaction():
        await complete(stage.a, lease)
        task = await stage.waiting(beat(stage.b, NS, SILENCE, GRACE))
    assert (await task).prolonged == 0
    assert await stage.place(no["x"]) == "SUCCEEDED"
    assert await stage.count("lease") == 0


async def test_a_server_started_after_an_outage_burns_no_attempt(dsn: str) -> None:
    async with crew_on(dsn) as crew:
        made = await crew.create({"name": "x"}, {"name": "y", "retry": {"maxAttempts": 1}})
        leases = await crew.claim(2)
    async with stage_on(dsn, names=False) as stage:
        await outage(stage, silent=60, ended=30)
        async with crew_on(dsn) as crew:
            sweeps = await swept(crew)
            assert sweeps == []
            for task in made["tasks"]:
                found = await crew.task(task["id"])
                assert (found["state"], found["attempt"]) == ("RUNNING", 1)
            assert await left(stage) == [pytest.approx(45, abs=4)]
            answer = await crew.complete(*leases)
            assert (answer["completed"], answer["errors"]) == (2, [])


async def test_a_server_that_goes_on_after_an_outage_of_the_database_burns_no_attempt(dsn: str) -> None:
    """The gap ends under a running server: its own beat or its own sweep may come first."""
    async with crew_on(dsn, rhythm=Rhythm(beat=0.02)) as crew:
        await crew.create({"name": "x"})
        (lease,) = await crew.claim()
        for _ in range(20):
            await crew.sql(
                "with gap as (update namespace set alive_at = now() - interval '60 s')"
                " update lease set until = now() - interval '30 s'"
            )
            crew.services.core.due(0)
            await until(lambda: beaten(crew), "the server beat")
        assert await swept(crew) == []
        assert (await crew.complete(lease))["completed"] == 1


async def beaten(crew: Crew) -> bool:
    (row,) = await crew.sql("select alive_at > now() - interval '5 s' as beaten from namespace where ns = 1")
    return row["beaten"]


async def swept(crew: Crew) -> list[object]:
    """What ran out in a sweep that surely comes after the first beat: a lease of our own, ended before the gap, is gone."""
    await crew.create({"name": "mark", "channel": "mark"})
    (mark,) = await crew.claim(1, ("mark",))
    await crew.sql(
        "update lease set until = now() - interval '1 s' where lease_no = $1",
        crew.services.core.lease_ids.read(mark["id"])[0],
    )
    (again,) = await crew.claim(1, ("mark",), waitSeconds=5)
    await crew.complete(again)
    return await crew.sql("select e.no from error e join task t using (ns, no) where t.name <> 'mark'")
