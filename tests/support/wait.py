"""Waiting for an effect, and moving the clock: tests never sleep for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from tests.support.crew import Crew

Seen = TypeVar("Seen")


async def until(check: Callable[[], Awaitable[Seen]], seconds: float = 10) -> Seen:
    """The first truthy answer of `check`. Fails when there is none within `seconds`."""
    give_up = time.monotonic() + seconds
    while True:
        seen = await check()
        if seen:
            return seen
        if time.monotonic() > give_up:
            raise AssertionError(f"still {seen!r} after {seconds:g} s")
        await asyncio.sleep(0.01)


async def move_clock(crew: Crew, statement: str, *args: Any) -> None:
    """Move what is due by SQL, and have the server's clock look at once."""
    await crew.sql(statement, *args)
    crew.services.core.due(0)


async def expire_leases(crew: Crew) -> None:
    """Every lease has run out. Returns when the server has taken them back."""
    await move_clock(crew, "update lease set until = now() - interval '1 s'")
    await until(lambda: _none_left(crew))


async def _none_left(crew: Crew) -> bool:
    rows = await crew.sql("select count(*)::int as n from lease where until < now()")
    return rows[0]["n"] == 0


async def end_delays(crew: Crew) -> None:
    """Every delay is over. Returns when the server has made the tasks ready."""
    await move_clock(crew, "update scheduled set run_at = now() - interval '1 s'")

    async def none_left() -> bool:
        return (await crew.sql("select count(*)::int as n from scheduled"))[0]["n"] == 0

    await until(none_left)


async def end_suspensions(crew: Crew) -> None:
    """Every suspension is over. Returns when the server has let its tasks go."""
    await move_clock(crew, "update hold set until = now() - interval '1 s'")

    async def none_left() -> bool:
        rows = await crew.sql("select (select count(*) from hold)::int + (select count(*) from parked)::int as n")
        return rows[0]["n"] == 0

    await until(none_left)
