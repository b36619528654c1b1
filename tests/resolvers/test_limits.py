"""How many tasks of a channel or workgroup run at once, and start in a window."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from tests.support.crew import Crew, Refused, crew_on
from tests.support.wait import expire_leases, until

Json = dict[str, Any]


async def limit_workgroup(crew: Crew, name: str = "w", **given: Any) -> Json:
    query = (
        "mutation($input: WorkgroupInput!) { configureWorkgroup(input: $input) "
        "{ workgroup { name maxRunning rateLimit { limit perSeconds } } } }"
    )
    return (await crew.ask(query, input={"name": name, **given}))["configureWorkgroup"]["workgroup"]


async def limit_channel(crew: Crew, name: str = "c", **given: Any) -> Json:
    query = "mutation($input: ChannelInput!) { configureChannel(input: $input) { channel { name maxRunning } } }"
    return (await crew.ask(query, input={"name": name, **given}))["configureChannel"]["channel"]


def of(workgroup: str, n: int, **more: Any) -> list[Json]:
    return [{"name": f"{workgroup}{i}", "workgroup": workgroup, **more} for i in range(n)]


def names(leases: list[Json]) -> list[str]:
    return [x["task"]["name"] for x in leases]


async def held(crew: Crew, id: str) -> list[str]:
    return (await crew.task(id, "heldBy"))["heldBy"]


async def test_what_is_not_given_stays_and_null_lifts(crew: Crew) -> None:
    rate = {"limit": 5, "perSeconds": 2.0}
    assert await limit_workgroup(crew, maxRunning=3) == {"name": "w", "maxRunning": 3, "rateLimit": None}
    assert await limit_workgroup(crew, rateLimit=rate) == {"name": "w", "maxRunning": 3, "rateLimit": rate}
    assert await limit_workgroup(crew, maxRunning=None) == {"name": "w", "maxRunning": None, "rateLimit": rate}
    assert await limit_workgroup(crew) == {"name": "w", "maxRunning": None, "rateLimit": rate}
    assert await limit_workgroup(crew, rateLimit=None) == {"name": "w", "maxRunning": None, "rateLimit": None}
    assert await limit_channel(crew, maxRunning=3) == {"name": "c", "maxRunning": 3}
    assert await limit_channel(crew) == {"name": "c", "maxRunning": 3}
    assert await limit_channel(crew, maxRunning=None) == {"name": "c", "maxRunning": None}
    assert await crew.sql("select * from cap where kind > 0") == []


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"maxRunning": -1}, ["maxRunning"]),
        ({"rateLimit": {"limit": 0, "perSeconds": 1}}, ["rateLimit", "limit"]),
        ({"rateLimit": {"limit": 1, "perSeconds": 0}}, ["rateLimit", "perSeconds"]),
        ({"name": ""}, ["name"]),
    ],
)
async def test_bad_input_is_refused_and_nothing_is_limited(crew: Crew, given: Json, path: list[str]) -> None:
    with pytest.raises(Refused) as refused:
        await limit_workgroup(crew, **given)
    assert refused.value.code == "BAD_INPUT"
    assert refused.value.errors[0]["extensions"]["path"] == ["input", *path]
    assert await crew.sql("select * from cap") == []


@pytest.mark.parametrize("before", [True, False])
async def test_a_workgroup_runs_no_more_than_its_limit_and_others_go_on(crew: Crew, before: bool) -> None:
    if before:
        await limit_workgroup(crew, maxRunning=2)
    made = await crew.create(*of("w", 4), *of("v", 2), {"name": "x"})
    if not before:
        await limit_workgroup(crew, maxRunning=2)
    got: list[Json] = []
    for _ in range(5):
        # Those under the limit stand aside, and are brought meanwhile.
        got += await crew.claim(9, waitSeconds=5) if len(got) < 5 else []
    assert sorted(names(got)) == ["v0", "v1", "w0", "w1", "x"]
    assert await held(crew, made["tasks"][3]["id"]) == ["WORKGROUP_LIMITED"]
    assert await crew.claim(9) == []
    (first,) = [x for x in got if x["task"]["name"] == "w0"]
    await crew.complete(first)
    assert names(await crew.claim(9)) == ["w2"]


async def test_who_waits_is_told_when_there_is_room(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=1)
    await crew.create(*of("w", 3))
    (first,) = await crew.claim(3)
    waiting = asyncio.create_task(crew.claim(3, waitSeconds=10))

    async def waits() -> bool:
        return crew.services.dispatcher.waiting == 1 and crew.services.dispatcher.idle

    await until(waits)
    began = time.monotonic()
    await crew.complete(first)
    assert names(await waiting) == ["w1"]
    assert time.monotonic() - began < 0.8, "before the floor poll"


async def test_room_is_told_to_other_servers(dsn: str) -> None:
    async with crew_on(dsn) as one, crew_on(dsn) as other:
        await limit_channel(one, maxRunning=1)
        await one.create({"name": "a"}, {"name": "b"})
        (first,) = await one.claim(2)
        waiting = asyncio.create_task(other.claim(2, waitSeconds=10))
        await asyncio.wait([waiting], timeout=0.3)
        assert not waiting.done()
        await one.complete(first)
        assert names(await waiting) == ["b"]


async def test_a_lease_that_is_lost_or_given_back_leaves_its_room(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=1)
    await crew.create(*of("w", 2))
    (first,) = await crew.claim(2)
    await crew.release(first)
    assert len(await crew.claim(2)) == 1
    assert await crew.claim(2) == []
    await expire_leases(crew)
    assert len(await crew.claim(2, waitSeconds=5)) == 1
    assert await crew.claim(2) == []


async def test_what_is_urgent_goes_before_what_waits_longer(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=1)
    await crew.create(*of("w", 20))
    (first,) = await crew.claim(2)

    async def aside() -> bool:
        return (await crew.sql("select count(*)::int as n from parked"))[0]["n"] > 10

    await until(aside)
    await crew.create({"name": "now", "workgroup": "w", "priority": 5})

    async def seen() -> bool:
        return bool(await crew.sql("select from ready where admitted and rank = -5"))

    await until(seen)
    await crew.complete(first)
    assert names(await crew.claim(2, waitSeconds=5)) == ["now"]


async def test_a_channel_runs_no_more_than_its_limit(crew: Crew) -> None:
    await limit_channel(crew, maxRunning=2)
    made = await crew.create(*[{"name": f"a{n}"} for n in range(4)], {"name": "d", "channel": "d"})
    got = await crew.claim(9, channels=("c", "d"))
    assert sorted(names(got)) == ["a0", "a1", "d"]
    assert await held(crew, made["tasks"][3]["id"]) == ["CHANNEL_LIMITED"]
    assert await crew.claim(9, channels=("c", "d")) == []
    await crew.complete(got[0])
    assert len(await crew.claim(9, channels=("c", "d"))) == 1


async def test_a_channel_nobody_works_on_keeps_no_room_from_others(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=2)
    await crew.create(*of("w", 50, channel="idle"), *[{"name": f"b{n}", "workgroup": "w"} for n in range(3)])

    async def claimable() -> list[Json]:
        return await crew.claim(9)

    assert names(await until(claimable)) == ["b0", "b1"]
    assert len(await crew.claim(9, channels=("idle",))) == 0


async def test_keys_and_limits_go_together(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=1)
    await crew.create(
        *[{"name": f"k{n}", "workgroup": "w", "key": "k"} for n in range(3)], {"name": "l", "workgroup": "w"}
    )
    (first,) = await crew.claim(9)
    assert first["task"]["name"] == "k0"
    await crew.complete(first)
    assert names(await crew.claim(9, waitSeconds=5)) == ["l"]


async def test_a_suspension_of_a_limited_workgroup_holds_it(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=5)
    await crew.create(*of("w", 3))
    await crew.ask('mutation { suspendWorkgroup(name: "w", seconds: 100) { workgroup { name } } }')
    assert await crew.claim(9) == []
    await crew.ask('mutation { resumeWorkgroup(name: "w") { workgroup { name } } }')
    assert sorted(names(await crew.claim(9, waitSeconds=5))) == ["w0", "w1", "w2"]


async def test_a_limit_that_is_lifted_lets_all_go(crew: Crew) -> None:
    await limit_workgroup(crew, maxRunning=0)
    await crew.create(*of("w", 5))

    async def aside() -> bool:
        return (await crew.sql("select count(*)::int as n from parked"))[0]["n"] == 5

    assert await crew.claim(9) == []
    await until(aside)
    await limit_workgroup(crew, maxRunning=None)
    assert len(await crew.claim(9)) == 5


async def test_in_no_window_start_more_than_the_rate_over_all_servers(dsn: str) -> None:
    """Two servers, four workers, leases that end at once: the log of starts shows every window."""
    async with crew_on(dsn) as one, crew_on(dsn) as other:
        await limit_workgroup(one, rateLimit={"limit": 10, "perSeconds": 0.5})
        await one.create(*of("w", 45))
        done: list[str] = []

        async def work(crew: Crew, name: str) -> None:
            while len(done) < 45:
                got = await crew.claim(4, workerId=name, waitSeconds=1)
                if got:
                    await crew.complete(*got)
                done.extend(names(got))

        began = time.monotonic()
        await asyncio.gather(*(work(crew, f"{n}") for n, crew in enumerate((one, one, other, other))))
        took = time.monotonic() - began
        rows = await one.sql("select at, n from start order by at")
    starts = [row["at"] for row in rows for _ in range(row["n"])]
    assert len(set(done)) == len(done) == len(starts) == 45
    assert all((b - a).total_seconds() >= 0.5 for a, b in zip(starts, starts[10:], strict=False))
    assert 2.0 <= took < 6, took


async def test_two_servers_together_never_run_more_than_the_limit(dsn: str) -> None:
    async with crew_on(dsn) as one, crew_on(dsn) as other:
        await limit_workgroup(one, maxRunning=3)
        await one.create(*of("w", 60))
        running, most, done = 0, 0, 0

        async def work(crew: Crew, name: str) -> None:
            nonlocal running, most, done
            while done < 60:
                got = await crew.claim(2, workerId=name, waitSeconds=1)
                running += len(got)
                most = max(most, running)
                await asyncio.sleep(0)
                # They end in the database after this.
                running -= len(got)
                if got:
                    await crew.complete(*got)
                done += len(got)

        await asyncio.gather(*(work(crew, f"{n}") for n, crew in enumerate((one, one, other, other))))
    assert (done, most <= 3) == (60, True)
