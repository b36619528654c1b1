"""The clock: sleeps until the next lease, delay or suspension ends, and ends it."""

from __future__ import annotations

import asyncio
import time

from db.clock import EVER, end_holds, next_due, parked_free
from resolvers.clock import expire, promote
from resolvers.core import Core
from resolvers.workgroup import release_held

_BATCH = 1000
_LEASES = 200
_SHORTEST = 0.001
_BACK = 60.0
"""A transaction that makes something due ends within so many seconds (statements have 30)."""
_LOOK_SHARE = 20
"""Looking further back takes one part in so many of the time."""


class Clock:
    """`due` sets it: something ends in so many seconds. It never sleeps longer than the floor, for what others set."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._set = asyncio.Event()
        self._next = float("inf")
        self._next_look = 0.0
        """When to look for what was due at any time, and was missed."""

    def due(self, seconds: float) -> None:
        at = time.monotonic() + max(seconds, 0.0)
        if at < self._next:
            self._next = at
            self._set.set()

    async def step(self) -> None:
        began = time.monotonic()
        whole = began >= self._next_look
        back = EVER if whole else _BACK
        first = await next_due(self._core.pool, self._core.ns, back)
        if whole:
            self._next_look = time.monotonic() + (time.monotonic() - began) * _LOOK_SHARE
        await self._sleep(first)
        await self._end_what_is_due(back)

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
                async with asyncio.timeout(left):
                    await self._set.wait()
            except TimeoutError:
                continue

    async def _end_what_is_due(self, back: float) -> None:
        core = self._core
        while (expired := await expire(core, _LEASES, back)) == _LEASES:
            pass
        while (promoted := await promote(core, _BATCH, back)) == _BATCH:
            pass
        ended = await end_holds(core.pool, core.ns)
        if expired or promoted or ended:
            core.stir()
        free = await parked_free(core.pool, core.ns)
        if ended or free:
            await release_held(core, sorted({*ended, *free}))
