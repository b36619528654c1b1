"""What a thousand idle workers cost the database: nothing beyond the floor poll, which is one for all of them."""

from __future__ import annotations

import asyncio
import time
import uuid

from resolvers.access import FRESH
from tests.support.counted import calls
from tests.support.crew import Crew, crew_on
from tests.support.wait import until

WORKERS = 1000
FLOOR = {"ready_channels"}
"""The floor poll, once for all who wait."""
BACKGROUND = {"announce", "beat", "next_due", "overdue_leases", "promote_scheduled", "end_holds", "parked_free"}
BACKGROUND |= {
    "fold_events",
    "fold_groups",
    "park_held",
    "park_front",
    "any_cap",
    "ping_workers",
    "dead_rows",
    "never_analyzed",
    "seem_empty",
}
BACKGROUND |= {
    "forget_claims",
    "forget_pace",
    "moved_logs",
    "forget_ended_pauses",
    "forget_ended_keys",
    "make_tick",
    "forget_ticks",
    "forget_events",
}
BACKGROUND |= {"api_keys", "keys_mark", "note_key_uses", "namespaces"}
BACKGROUND |= {"next_due_schedule", "due_schedules", "inbox_waits", "read_operators"}
"""What a server asks now and then however many workers there are."""


async def test_a_thousand_idle_workers_add_no_statement_beyond_the_floor(crew: Crew) -> None:
    asked = 0

    async def work(name: str) -> None:
        nonlocal asked
        while True:
            assert await crew.claim(1, workerId=name, waitSeconds=2, claimId=str(uuid.uuid4())) == []
            asked += 1

    async def all_wait() -> bool:
        return crew.services.dispatcher.waiting == WORKERS

    async def all_asked_again() -> bool:
        return asked >= 3 * WORKERS

    await crew.create({"name": "x"})
    await crew.complete(*await crew.claim())
    running = [asyncio.create_task(work(f"worker-{n}")) for n in range(WORKERS)]
    try:
        await until(all_wait, 30)
        before, began = await calls(crew), time.monotonic()
        await until(all_asked_again, 60)
        seconds = time.monotonic() - began
        ran = await calls(crew) - before
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    polls = seconds / (0.9 * crew.services.core.rhythm.floor) + 2
    # On a machine so busy that the floor poll is late, all who wait look once instead: still one statement for all.
    for look in ("claim_tasks", "claimed_before"):
        assert ran.pop(look, 0) <= polls, ran
    assert {name: n for name, n in ran.items() if name not in BACKGROUND | FLOOR} == {}
    assert all(1 < ran[name] <= polls for name in FLOOR), (ran, polls)
    assert ran["ping_workers"] <= seconds / 13 + 1
    # Their mark is confirmed with each beat; where a busy machine makes beats late, they are read once for all.
    assert ran["api_keys"] <= seconds / FRESH + 1
    rows = await crew.sql("select count(*)::int as n from pg_stat_activity where datname = current_database()")
    assert rows[0]["n"] <= crew.services.core.pool.size + 1, "the pool and the one that listens"


async def test_idle_workers_with_channels_of_their_own_are_one_poll_too(dsn: str) -> None:
    async with crew_on(dsn) as crew:
        await crew.create(*({"name": "later", "channel": f"c{n}", "delaySeconds": 1000} for n in range(300)))
        claims = [
            asyncio.create_task(crew.claim(1, channels=(f"c{n}", f"d{n}"), waitSeconds=20, workerId=f"w{n}"))
            for n in range(300)
        ]

        async def all_wait() -> bool:
            return crew.services.dispatcher.waiting == len(claims) and crew.services.dispatcher.idle

        await until(all_wait, 30)
        before = await calls(crew)
        await until(lambda: _polled(crew, before["ready_channels"] + 3))
        ran = await calls(crew) - before
        assert {name: n for name, n in ran.items() if name not in BACKGROUND | FLOOR | {"known_channels"}} == {}
        for claim in claims:
            claim.cancel()
        await asyncio.gather(*claims, return_exceptions=True)


async def _polled(crew: Crew, times: int) -> bool:
    return (await calls(crew))["ready_channels"] >= times
