"""Servers tell each other where tasks became ready. The floor poll is too slow to help here: only a hint can wake a claim."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from resolvers.core import Rhythm
from tests.support.counted import calls
from tests.support.crew import Crew, crew_on
from tests.support.proxy import proxy_to
from tests.support.wait import until

SLOW = Rhythm(floor=300, beat=0.05, listen_ping=0.3)
CANCEL = "mutation($ids: [ID!]) { cancelTasks(ids: $ids) { affected } }"
SUSPEND = 'mutation { suspendWorkgroup(name: "w", seconds: 1000) { workgroup { name } } }'
RESUME = 'mutation { resumeWorkgroup(name: "w") { workgroup { name } } }'
PAUSE = 'mutation { pauseChannel(name: "c") { channel { name } } }'
GO_ON = 'mutation { resumeChannel(name: "c") { channel { name } } }'


@asynccontextmanager
async def two_that_know_each_other(dsn: str, direct: str | None = None) -> AsyncIterator[tuple[Crew, Crew]]:
    async with (
        crew_on(dsn, rhythm=SLOW) as one,
        crew_on(dsn, rhythm=SLOW, **({"database_direct_url": direct} if direct else {})) as two,
    ):
        await acquainted(one)
        yield one, two


async def acquainted(crew: Crew) -> None:
    """Both have announced themselves since the later one came, and both listen."""

    async def seen() -> bool:
        rows = await crew.sql(
            "select count(*)::int as n from server where seen_at > (select max(started_at) from server)"
        )
        return rows[0]["n"] == 2 and await listeners(crew) == 2

    await until(seen)


async def listeners(crew: Crew) -> int:
    rows = await crew.sql(
        "select count(*)::int as n from pg_stat_activity where datname = current_database() "
        "and application_name = 'crew listens' and (query like 'LISTEN%' or query = 'select 1')"
    )
    return rows[0]["n"]


@asynccontextmanager
async def waiting(crew: Crew, **more: Any) -> AsyncIterator[asyncio.Future[list[dict[str, Any]]]]:
    """A claim that waits there: it has looked once, and found nothing."""
    claim = asyncio.ensure_future(crew.claim(9, waitSeconds=20, **more))

    async def stands() -> bool:
        return crew.services.dispatcher.waiting > 0 and crew.services.dispatcher.idle

    await until(stands)
    yield claim
    await asyncio.wait_for(claim, 5)


async def test_what_becomes_ready_at_one_server_wakes_a_claim_at_another(dsn: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        async with waiting(two) as claim:
            made = await one.create({"name": "x", "ref": "x"}, {"name": "y", "parents": [{"ref": "x"}]})
        async with waiting(one) as second:
            await two.complete(*claim.result())
        assert [lease["task"]["id"] for lease in second.result()] == [made["tasks"][1]["id"]]


@pytest.mark.parametrize("how", ["released", "lost", "delay over"])
async def test_so_does_what_is_ready_again(dsn: str, how: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        await one.create({"name": "x", "delaySeconds": 1000 if how == "delay over" else 0})
        held = await one.claim()
        async with waiting(two) as claim:
            if how == "released":
                await one.release(*held)
            else:
                table, column = ("lease", "until") if how == "lost" else ("scheduled", "run_at")
                await one.sql(f"update {table} set {column} = now() - interval '1 s'")
                one.services.core.due(0)
        assert len(claim.result()) == 1


@pytest.mark.parametrize(("hold", "free"), [(SUSPEND, RESUME), (PAUSE, GO_ON)])
async def test_so_does_what_is_no_longer_held(dsn: str, hold: str, free: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        await one.create({"name": "x", "workgroup": "w"})
        await one.ask(hold)
        async with waiting(two) as claim:
            await one.ask(free)
        assert len(claim.result()) == 1


async def test_a_worker_hears_at_one_server_of_a_cancel_at_another(dsn: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        made = await one.create({"name": "x"})
        (lease,) = await one.claim()
        await two.ask(CANCEL, ids=[made["tasks"][0]["id"]])
        (error,) = (await one.extend(lease))["errors"]
        assert error["code"] == "CANCELLED"


async def test_a_hint_too_long_to_send_has_all_look(dsn: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        channels = [f"channel-{n}" for n in range(2000)]
        async with waiting(two, channels=("channel-1999",)) as claim:
            await one.create(*({"name": "x", "channel": name} for name in channels))
        assert len(claim.result()) == 1


async def test_a_listener_that_was_closed_listens_again_and_finds_what_it_missed(dsn: str) -> None:
    async with two_that_know_each_other(dsn) as (one, two):
        async with waiting(two) as claim:
            await asyncio.gather(kill_listeners(one), one.create({"name": "x"}))
        assert len(claim.result()) == 1
        await acquainted(one)


async def kill_listeners(crew: Crew) -> None:
    await crew.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and application_name = 'crew listens'"
    )


async def test_a_black_holed_listener_is_noticed_and_what_it_missed_is_found(dsn: str) -> None:
    """Nothing closes the connection; it only does not answer any more."""
    async with proxy_to(dsn) as proxy, two_that_know_each_other(dsn, proxy.dsn) as (one, two):
        async with waiting(two) as claim:
            proxy.cut()
            before = proxy.connections
            await one.create({"name": "x"})

            async def dialled_again() -> bool:
                return proxy.connections > before

            await until(dialled_again)
            proxy.mend()
        assert len(claim.result()) == 1


async def test_a_server_that_is_alone_tells_nobody(crew: Crew) -> None:
    await crew.create({"name": "x"})
    await crew.complete(*await crew.claim())
    assert (await calls(crew))["hint"] == 0


async def test_a_server_that_stops_is_no_longer_counted(dsn: str) -> None:
    async with crew_on(dsn) as one:

        async def counted(n: int) -> bool:
            return len(await one.sql("select from server")) == n

        async with crew_on(dsn):
            await until(lambda: counted(2))
        assert await counted(1)
