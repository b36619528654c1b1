"""The clock: sleeps until the next lease, delay or suspension ends, and ends it."""

from __future__ import annotations

import asyncio
import time

from db.clock import end_holds, next_due, parked_free
from resolvers.clock import expire, promote
from resolvers.core import Core
from resolvers.workgroup import release_held

_BATCH = 1000
_LEASES = 200
_SHORTEST = 0.001


class Clock:
    """`due` sets it: something ends in so many seconds. It never sleeps longer than the floor, for what others set."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._set = asyncio.Event()
        self._next = float("inf")

    def due(self, seconds: float) -> None:
        at = time.monotonic() + max(seconds, 0.0)
        if at < self._next:
            self._next = at
            self._set.set()

    async def step(self) -> None:
        await self._sleep(await next_due(self._core.pool, self._core.ns))
        await self._end_what_is_due()

    async def _sleep(self, first: float | None) -> None:
        """Until the first thing is due, as the database says and as `due` has said since."""
        floor = time.monotonic() + self._core.rhythm.floor
        wake_at = min(floor, float("inf") if first is None else time.monotonic() + max(first, _SHORTEST))
        while True:
            wake_at = min(wake_at, self._next)
            self._set.clear()
            left = wake_at - time.monotonic()
            if left <= 0:
                self._next = float("inf")
                return
            try:
                await asyncio.wait_for(self._set.wait(), left)
            except TimeoutError:
                continue

    async def _end_what_is_due(self) -> None:
        core = self._core
        while await expire(core, _LEASES) == _LEASES:
            pass
        while await promote(core, _BATCH) == _BATCH:
            pass
        ended = await end_holds(core.pool, core.ns)
        free = await parked_free(core.pool, core.ns)
        if ended or free:
            await release_held(core, sorted({*ended, *free}))
