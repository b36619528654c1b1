"""The clock: sleeps until the next lease, delay or suspension ends, and ends it."""

from __future__ import annotations

import time

from db.clock import EVER, end_holds, next_due
from resolvers.clock import expire, promote
from resolvers.core import Core
from resolvers.workgroup import release_held
from server.loops.alarm import Alarm

_BATCH = 1000
_LEASES = 200
_BACK = 60.0
"""A transaction that makes something due ends within so many seconds (statements have 30)."""
_LOOK_SHARE = 20
"""Looking further back takes one part in so many of the time."""


class Clock:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._alarm = Alarm(core.rhythm.floor)
        self.due = self._alarm.due
        """Something ends in so many seconds."""
        self._next_look = 0.0
        """When to look for what was due at any time, and was missed."""

    async def step(self) -> None:
        began = time.monotonic()
        whole = began >= self._next_look
        back = EVER if whole else _BACK
        first = await next_due(self._core.pool, self._core.ns, back)
        if whole:
            self._next_look = time.monotonic() + (time.monotonic() - began) * _LOOK_SHARE
        await self._alarm.sleep(first)
        await self._end_what_is_due(back)

    async def _end_what_is_due(self, back: float) -> None:
        core = self._core
        while (expired := await expire(core, _LEASES, back)) == _LEASES:
            pass
        while (promoted := await promote(core, _BATCH, back)) == _BATCH:
            pass
        ended = await end_holds(core.pool, core.ns)
        if expired or promoted or ended:
            core.stir()
        if ended:
            await release_held(core, ended)
