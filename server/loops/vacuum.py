"""Vacuums hot tables that have many dead rows, and analyzes new ones, on a connection of its own; one server at a time."""

from __future__ import annotations

import time

from db.vacuum import (
    analyze,
    dead_rows,
    never_analyzed,
    seem_empty,
    tell_planner,
    the_one_that_vacuums,
    vacuum,
)
from resolvers.core import Core
from server.loops.run import pause

_LEAST = 5000
_WORTH_A_LOOK = 1000
"""Rows of a new table: autovacuum would see to it within a minute, in which the first burst is over."""
_SHARE = 20
"""Each table is vacuumed for one part in so many of the time: a snapshot that is held makes it long, and in vain."""


class Vacuum:
    def __init__(self, core: Core, dsn: str) -> None:
        self._core = core
        self._dsn = dsn
        self._not_before: dict[str, float] = {}

    async def step(self) -> None:
        await pause(self._core.rhythm.vacuum)
        tables = await dead_rows(self._core.pool, _LEAST)
        due = [table for table in tables if time.monotonic() >= self._not_before.get(table, 0.0)]
        unknown = await never_analyzed(self._core.pool, _WORTH_A_LOOK)
        if not (due or unknown or await seem_empty(self._core.pool)):
            return
        async with the_one_that_vacuums(self._dsn) as connection:
            if connection is None:
                return
            for table in unknown:
                await analyze(connection, table)
            for table in due:
                began = time.monotonic()
                await vacuum(connection, table)
                self._not_before[table] = time.monotonic() + (time.monotonic() - began) * _SHARE
            for table, pages in await seem_empty(self._core.pool):
                await tell_planner(connection, table, pages)
