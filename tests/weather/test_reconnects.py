"""What five hundred sockets that come and go cost the database: no connection beyond the pool, and no statement for each."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter

import httpx
from websockets.asyncio.client import ClientConnection

from tests.support.counted import calls
from tests.support.crew import Crew
from tests.support.streams import EVENTS, PUSH, Served, connected, served
from tests.support.wait import until
from tests.weather.test_idle import BACKGROUND, FLOOR

SOCKETS = 500
WATCHING = {"watch_streams", "read_ticks", "known_channels"}
"""What is asked once for all streams of a server, as often as the floor poll."""


async def subscribe(ws: ClientConnection, n: int) -> None:
    """Two subscriptions, both told their first message."""
    asked = {"workerId": f"w{n}", "channels": [f"c{n % 10}"]}
    for id, query, variables in ("1", EVENTS, {}), ("2", PUSH, {"input": asked}):
        payload = {"query": query, "variables": variables}
        await ws.send(json.dumps({"type": "subscribe", "id": id, "payload": payload}))
    assert [json.loads(await asyncio.wait_for(ws.recv(), 30))["type"] for _ in range(2)] == ["next", "next"]


async def test_sockets_cost_no_connections_and_no_statements_each(dsn: str) -> None:
    async with served(dsn) as server, httpx.AsyncClient(verify=False) as http:
        crew = Crew(http, server.services, dsn)
        most, reconnects, idle = 0, 0, asyncio.Event()

        async def live(n: int) -> None:
            """A new socket each second, until all are to stay."""
            nonlocal reconnects
            while True:
                async with connected(server) as ws:
                    await subscribe(ws, n)
                    if idle.is_set():
                        await asyncio.Event().wait()
                    await asyncio.sleep(1)
                    if idle.is_set():
                        await asyncio.Event().wait()
                reconnects += 1

        async def reconnected(times: int) -> bool:
            nonlocal most
            most = max(most, await connections(crew))
            return reconnects >= times * SOCKETS

        living = [asyncio.create_task(live(n)) for n in range(SOCKETS)]
        try:
            await until(lambda: reconnected(1), 60)
            before = await calls(crew)
            await until(lambda: reconnected(3), 60)
            ran = await calls(crew) - before
            assert most <= crew.services.core.pool.size + 1, "the pool and the one that listens"
            # Whoever comes is written down together with those who come at the same time.
            assert ran["enter_streams"] <= SOCKETS / 5, (ran, reconnects)
            assert max(ran.values()) <= SOCKETS / 5, ran

            idle.set()
            await until(lambda: all_open(server), 60)
            await until(lambda: quiet(crew), 60)
            quietly, seconds = await seen_for(crew, 5)
        finally:
            for task in living:
                task.cancel()
            await asyncio.gather(*living, return_exceptions=True)
    polls = seconds / (0.9 * crew.services.core.rhythm.floor) + 2
    assert {name: n for name, n in quietly.items() if name not in BACKGROUND | FLOOR | WATCHING} == {}
    assert all(quietly[name] <= polls for name in FLOOR | WATCHING), (quietly, polls)


async def connections(crew: Crew) -> int:
    """All of the server's but the one that vacuums, which comes and goes with dead rows; and one of these asks."""
    rows = await crew.sql(
        "select count(*)::int as n from pg_stat_activity where datname = current_database() "
        "and backend_type = 'client backend' and application_name <> 'crew vacuums'"
    )
    return rows[0]["n"]


async def all_open(server: Served) -> bool:
    return (server.services.push.open, server.services.log.listeners) == (SOCKETS, SOCKETS)


async def quiet(crew: Crew) -> bool:
    """Nobody comes or goes: a second without an entry."""
    ran, _ = await seen_for(crew, 1)
    return not ran["enter_streams"] and not ran["leave_streams"]


async def seen_for(crew: Crew, seconds: float) -> tuple[Counter[str], float]:
    """What ran in so many seconds, or a little more."""
    before, began = await calls(crew), time.monotonic()
    await asyncio.sleep(seconds)
    return await calls(crew) - before, time.monotonic() - began
