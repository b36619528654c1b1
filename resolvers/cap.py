"""Limits: how many tasks of a channel or workgroup run at once, and how many of a workgroup start in a window.

They are kept by claims, which take turns where they meet one (ADR 14). Ready tasks of a limited workgroup stand aside, so that
claims do not pass over them again and again; `Admission` brings a few of each channel to where claims look.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from db.cap import CHANNEL, WORKGROUP, Asked, Rate, admit, any_cap, lift_cap, set_cap
from db.pool import Connection
from resolvers import check
from resolvers.core import Core
from resolvers.errors import Path
from resolvers.follow import move
from resolvers.workgroup import release_held

MOST = 1_000_000
MOST_SECONDS = 30 * 86_400.0
ADMITTED = 1000
"""Of one workgroup and channel, at most."""
_BETWEEN = 0.01
_FIRST = -(1 << 31)


def checked_most(most: int | None, path: Path) -> int | None:
    return None if most is None else check.whole(most, path, "maxRunning", 0, MOST)


def checked_rate(limit: int, seconds: float, path: Path) -> Rate:
    return Rate(
        check.whole(limit, (*path, "limit"), "limit", 1, MOST),
        check.number(seconds, (*path, "perSeconds"), "perSeconds", 0.001, MOST_SECONDS),
    )


async def configure_channel(core: Core, name: str, asked: Asked) -> None:
    """Makes the channel when no task has named it yet."""
    word = check.text(name, ("input", "name"), "name")
    number = (await core.channels.numbers([word]))[word]
    await _set(core, CHANNEL, number, asked)
    core.wake([(number, _FIRST, 0)])


async def configure_workgroup(core: Core, name: str, asked: Asked) -> None:
    """Makes the workgroup when no task has named it yet."""
    word = check.text(name, ("input", "name"), "name")
    number = (await core.workgroups.numbers([word]))[word]
    if await _set(core, WORKGROUP, number, asked):
        core.limited = True
    else:
        await release_held(core, [number])
    core.wake([(channel, _FIRST, 0) for channel in core.channels.name])


async def _set(core: Core, kind: int, number: int, asked: Asked) -> bool:
    async def work(connection: Connection) -> bool:
        limited = await set_cap(connection, core.ns, kind, number, asked)
        if not limited:
            await lift_cap(connection, core.ns, kind, number)
        return limited

    return await core.pool.run(work, transaction=True)


class Admission:
    """Brings ready tasks of limited workgroups to where claims look: when something became ready or has ended, and at the floor."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._stirred = asyncio.Event()

    def stir(self) -> None:
        if self._core.limited:
            self._stirred.set()

    async def admit(self) -> bool:
        """Whether some were brought."""
        if not self._core.limited:
            return False
        core = self._core
        moved = await move(core, partial(admit, ns=core.ns, most=ADMITTED))
        core.wake(moved.places)
        return moved.count > 0

    async def step(self) -> None:
        core = self._core
        core.limited = await any_cap(core.pool, core.ns)
        if self._core.limited:
            self._stirred.clear()
            await self.admit()
            await asyncio.sleep(_BETWEEN)
        with suppress(TimeoutError):
            async with asyncio.timeout(core.rhythm.floor):
                await self._stirred.wait()
