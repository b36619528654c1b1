"""Schedules: sleeps until the next one is due, and runs it."""

from __future__ import annotations

from db.schedule import next_due_schedule
from resolvers.core import Core
from resolvers.schedule import Schedules
from server.loops.alarm import Alarm


class ScheduleLoop:
    def __init__(self, core: Core, schedules: Schedules) -> None:
        self._core = core
        self._schedules = schedules
        self._alarm = Alarm(core.rhythm.floor)
        self.due = self._alarm.due

    async def step(self) -> None:
        await self._alarm.sleep(await next_due_schedule(self._core.pool, self._core.ns))
        while await self._schedules.run_due():
            pass
